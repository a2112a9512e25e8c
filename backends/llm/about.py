"""What the backend for language models says of itself."""

from trivet.backends.api import About, Claim, Listing, Memory

PARAMETERS = (
    "attention",
    "block_size",
    "cuda_graphs",
    "device",
    "dtype",
    "generation_config",
    "gpu_memory_utilization",
    "heartbeat_timeout_s",
    "in_process",
    "kv_cache_bytes",
    "kv_cache_dtype",
    "load_timeout_s",
    "max_batched_tokens",
    "max_logprobs",
    "max_model_len",
    "max_num_seqs",
    "max_num_waiting",
    "model_path",
    "num_threads",
    "prefix_caching",
    "quantization",
    "reasoning_parser",
    "step_timeout_s",
    "tensor_parallel_size",
    "tool_call_parser",
)

_CAUSAL = "ForCausalLM"
"""How the architectures end that Hugging Face's files name; encoders and the like end otherwise."""


def _recognise(listing: Listing) -> Claim | None:
    """A Hugging Face folder of a language model, or the only GGUF file."""
    suffixes = [name.rpartition(".")[2] for name in listing.names]
    if suffixes.count("gguf") == 1:
        return Claim.CONTENT
    is_hub = "config.json" in listing.names and "safetensors" in suffixes
    return Claim.CONTENT if is_hub and _CAUSAL in listing.text_of("config.json") else None


ABOUT = About(
    word="llm",
    backend="trivet.backends.llm.backend:BACKEND",
    recognise=_recognise,
    packages=(
        "gguf",
        "jinja2",
        "llguidance",
        "msgpack",
        "safetensors",
        "tokenizers",
        "torch",
    ),
    install="trivet[llm]",
    completes=frozenset({"input", "instance_group", "model_transaction_policy", "output"}),
    only_reads=True,
    fields=(),
    parameters=PARAMETERS,
    memory=Memory(weight_suffixes=(".gguf", ".safetensors")),
)

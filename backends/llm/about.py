"""What the backend for language models says of itself."""

import re

from trivet.backends.api import About, Claim, Listing, Match, Measure, Memory

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
    "limit_mm_per_prompt",
    "load_timeout_s",
    "max_aspect_ratio",
    "max_batched_tokens",
    "max_image_bytes",
    "max_logprobs",
    "max_lora_rank",
    "max_loras",
    "max_model_len",
    "max_num_seqs",
    "max_num_waiting",
    "max_pixels",
    "model_path",
    "num_threads",
    "pipeline_parallel_size",
    "prefix_caching",
    "quantization",
    "reasoning_parser",
    "speculative_config",
    "speculative_model",
    "step_timeout_s",
    "tensor_parallel_size",
    "tool_call_parser",
)

_CAUSAL = ("ForCausalLM", "LMHead", "BertGenerationDecoder")
"""What is in the architectures that Hugging Face's files name; encoders and the like have names of
other kinds."""
SEEING = ("Idefics3ForConditionalGeneration", "SmolVLMForConditionalGeneration")
"""Those that read images, too; named one by one, as translators and others end alike."""
_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$")
"""Of a model that is split into several files: all but the first."""


def _recognise(listing: Listing) -> Claim | Match | None:
    """A Hugging Face folder of a language model, or the only GGUF file, perhaps in parts."""
    architecture = _architecture(listing)
    is_known = architecture in SEEING or any(part in architecture for part in _CAUSAL)
    if listing.ending(".safetensors") and is_known:
        return Claim.CONTENT
    models = _gguf_models(listing)
    return Match(Claim.CONTENT, models[0]) if len(models) == 1 else None


def _advise(listing: Listing) -> str | None:
    models = _gguf_models(listing)
    if len(models) < 2:
        return None
    listed = ", ".join(f"'{name}'" for name in models[:4])
    return (
        f"there are {len(models)} GGUF models ({listed}); leave one, or name it in "
        "`default_model_filename` of a config.pbtxt"
    )


def _gguf_models(listing: Listing) -> list[str]:
    """Their files, of those in parts the first."""
    return [name for name in listing.ending(".gguf") if not _LATER_PART.search(name)]


def _architecture(listing: Listing) -> str:
    named = listing.json_of("config.json").get("architectures")
    return str(named[0]) if isinstance(named, list) and named else ""


ABOUT = About(
    word="llm",
    backend="trivet.backends.llm.backend:BACKEND",
    recognise=_recognise,
    advise=_advise,
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
    compiled="trivet.backends.llm.native.library:why_not_used",
    completes=frozenset({"input", "instance_group", "model_transaction_policy", "output"}),
    only_reads=True,
    fields=("default_model_filename",),
    parameters=PARAMETERS,
    shared_imports=("trivet.backends.llm.engine.assemble",),
    memory=Memory(weight_suffixes=(".gguf", ".safetensors"), measure=Measure.REPORT),
)

"""What a GPU could do at most: the least time of a decode step, the most tokens of whole requests.

Floor of a step: every weight, and keys and values of every token in the cache, are read once,
while all is multiplied as fast as the device can, whichever takes longer. No launches, no host.
"""

from dataclasses import dataclass

from trivet.backends.llm.families.llama import LlamaShape

HEAD_BYTES = 2
"""A number of the output head, which stays in 16 bits."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Of one device, measured in the same run."""

    bytes_per_s: float
    flops_per_s: float


@dataclass(frozen=True, slots=True)
class Numbers:
    """How a model is stored."""

    weight_bytes: int = 2
    cache_bytes: int = 2


def body_parameters(config: LlamaShape) -> int:
    """Numbers in the layers' matrices."""
    heads = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    attention = config.hidden_size * (heads + config.num_heads * config.head_dim)
    return config.num_layers * (attention + 3 * config.hidden_size * config.intermediate_size)


def head_parameters(config: LlamaShape) -> int:
    """Numbers in the output head."""
    return config.hidden_size * config.vocabulary_size


def token_bytes(config: LlamaShape, numbers: Numbers) -> int:
    """Of a token in the cache."""
    per_layer = 2 * config.num_kv_heads * config.head_dim * numbers.cache_bytes
    return config.num_layers * per_layer


def step_floor_s(
    config: LlamaShape, batch: float, context: float, rates: Rates, numbers: Numbers
) -> float:
    """Seconds of a step that gives each of `batch` sequences of `context` tokens one more."""
    body, head = body_parameters(config), head_parameters(config)
    weights = body * numbers.weight_bytes + head * HEAD_BYTES
    cache = batch * context * token_bytes(config, numbers)
    products = 2 * (body + head) * batch
    return max((weights + cache) / rates.bytes_per_s, products / rates.flops_per_s)


def prefill_floor_s(config: LlamaShape, num_tokens: int, rates: Rates) -> float:
    """Seconds of a prompt's products and of its attention, half of which is masked."""
    products = 2 * body_parameters(config) * num_tokens
    width = config.num_layers * config.num_heads * config.head_dim
    return (products + 4 * width * num_tokens**2 / 2) / rates.flops_per_s


def ceiling_per_s(
    config: LlamaShape,
    prompt: int,
    output: int,
    rates: Rates,
    numbers: Numbers,
    *,
    cache_tokens: int,
    most_sequences: int,
) -> float:
    """Output tokens a second of whole requests: as many at a time as the cache holds at their mean
    length, each with its share of the decode steps and its own prefill."""
    context = prompt + output / 2
    batch = min(cache_tokens / context, most_sequences)
    decode_s = output * step_floor_s(config, batch, context, rates, numbers) / batch
    return output / (decode_s + prefill_floor_s(config, prompt, rates))

"""What a family's weights are called in files, and how ranks share each of them out."""

from dataclasses import dataclass
from enum import Enum, StrEnum


class Role(StrEnum):
    """What a weight is for."""

    EMBEDDING = "embedding"
    POSITIONS = "positions"
    FINAL_NORM = "final norm"
    HEAD = "head"
    ATTENTION_NORM = "attention norm"
    QUERY = "query"
    KEY = "key"
    VALUE = "value"
    QUERY_NORM = "query norm"
    KEY_NORM = "key norm"
    OUTPUT = "output"
    MLP_NORM = "MLP norm"
    GATE = "gate"
    UP = "up"
    DOWN = "down"


class Share(Enum):
    """A sharding rule: which part of a weight [outputs, inputs] a rank holds (Shoeybi et al.,
    Megatron-LM, 2019)."""

    WHOLE = "all of it"
    OUTPUTS = "its part of the outputs"
    HEADS = "its heads' outputs; key/value heads that are fewer than the ranks are held by several"
    INPUTS = "its part of the inputs; the bias is rank 0's, for the sum over all holds it once"
    TOKENS = "its part of the vocabulary, of which the last may be smaller"


@dataclass(frozen=True, slots=True)
class WeightName:
    """One weight of a file; its bias is beside it."""

    roles: tuple[Role, ...]
    """Several where a file joins matrices that read the same input, one above the other."""
    hub: str
    """In Hugging Face's files, without the `.weight` behind it; `{layer}` is the layer's number."""
    gguf: str
    """In GGUF files; empty if there is none."""
    share: Share = Share.WHOLE
    is_transposed: bool = False
    """Hugging Face's files have it as [inputs, outputs] (GPT-2's Conv1D)."""
    gguf_interleaves: bool = False
    """GGUF's converters interleave the two halves of each of its heads, for a rotation of
    neighbours instead of halves."""

    def in_hub(self, layer: int) -> str:
        """The name in Hugging Face's files, for a layer."""
        return self.hub.format(layer=layer)


@dataclass(frozen=True, slots=True)
class Names:
    """All that a family's files may hold."""

    weights: tuple[WeightName, ...]
    needless: tuple[str, ...] = ()
    """Endings of names that are read by nobody: what old files keep beside the weights."""
    cache_scales: str = ""
    """What files that are calibrated for a cache of 8 bits divide it by; `{layer}`, and `{kind}`,
    which is k or v."""
    rope_divisors: str = ""
    """What divides rotary frequencies in GGUF files: Llama 3's scaling, worked out in advance."""

    def of(self, role: Role) -> WeightName:
        """The weight that has a role, alone or with others. Raises LookupError where the family
        names none, which is a mistake in its declaration."""
        for name in self.weights:
            if role in name.roles:
                return name
        raise LookupError(f"the family names no weight for its {role.value}")

    def of_gguf(self, name: str) -> WeightName | None:
        """The weight of a GGUF name with `{layer}` for its layer."""
        return next((weight for weight in self.weights if weight.gguf == name), None)

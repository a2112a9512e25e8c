"""A model's weights as one process computes with them: taken by what they are for, cut to its part,
brought to its device, in the format that is wanted."""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import TypeVar

import torch
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.adapters.bank import AdapterBank
from trivet.backends.llm.adapters.places import ExpertPlaces, Part, Place
from trivet.backends.llm.device.group import Alone, Ranks
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.names import Role, Share, WeightName
from trivet.backends.llm.families.sharing import sharded_config
from trivet.backends.llm.matrices.dense import Dense
from trivet.backends.llm.matrices.formats import SHARES, formats_of, join, quantised
from trivet.backends.llm.matrices.matrix import INPUTS, OUTPUTS, Matrix, Multiplied, Stored
from trivet.backends.llm.weights.adaptable import Adaptable
from trivet.backends.llm.weights.rows import computed_order, neighbours

M = TypeVar("M", bound=Matrix)
_NEVER_QUANTISED = {Role.HEAD, Role.ROUTER, Role.SHARED_SHARE, Role.LATENT_UP}
"""A router's scores decide which experts are asked; its matrix is small. What leads from a latent
is multiplied head by head."""
_ADAPTED = frozenset({
    Role.QUERY, Role.KEY, Role.VALUE, Role.OUTPUT, Role.QUERY_DOWN, Role.LATENT, Role.GATE, Role.UP,
    Role.DOWN, Role.EXPERT_GATE, Role.EXPERT_UP, Role.EXPERT_DOWN, Role.SHARED_GATE, Role.SHARED_UP,
    Role.SHARED_DOWN,
})  # fmt: skip
"""The head is adapted as a table of tokens is. What leads from a latent is not computed as the file
has it, and a router's scores in a precision of their own."""


class Weights:
    """Read once, by the implementation that computes; where a file's layer, or a rank's part of it,
    is not needed at once, it does not lie on the device at once either."""

    def __init__(
        self,
        tensors: Mapping[str, Stored],
        config: LlmConfig,
        ranks: Ranks | None = None,
        device: torch.device | None = None,
        quantization: str = "",
        adapters: AdapterBank | None = None,
    ) -> None:
        """`tensors`: by Hugging Face's names; `config`: of the whole model; `device`: None where
        they lie; `quantization`: the format that dense matrices of layers get; `adapters`: learns
        what can be adapted. Raises LoadFailed where the model cannot be shared out."""
        self.ranks = ranks or Alone()
        self.whole = config
        """The config of the whole model."""
        size = self.ranks.size
        self.config = config if size == 1 else sharded_config(config, size, self.ranks.rank)
        """What this process computes."""
        self._tensors = _Noted(tensors)
        self._device = device
        self.quantization = quantization
        """The format that dense matrices of layers get; empty: they stay dense."""
        self.adapters = adapters
        """Over the model; None: there are never any."""
        if adapters is not None and config.names.weights:
            self._note_vocabulary(adapters)

    @property
    def tensors(self) -> Mapping[str, Stored]:
        """As they were given."""
        return self._tensors.tensors

    @property
    def formats(self) -> frozenset[str]:
        """Of all matrices, by name."""
        return formats_of(self._tensors.tensors, self.quantization)

    @property
    def dtype(self) -> torch.dtype:
        """Of what is computed."""
        like = self._like()
        assert like is not None, "a model has an embedding or layers"
        return like.dtype

    @property
    def device(self) -> torch.device:
        """Where it is computed."""
        like = self._like()
        assert like is not None, "a model has an embedding or layers"
        return self._device or like.device

    def _like(self) -> Stored | None:
        """A weight of the usual type: the embedding, or one of a layer where another stage has
        that."""
        names = self.whole.names
        for role in (Role.EMBEDDING, Role.OUTPUT):
            found = self._tensors.tensors.get(f"{names.of(role).in_hub(0)}.weight")
            if found is not None:
                return found
        return None

    @property
    def nbytes(self) -> int:
        """About what all take on the device: this rank's part of a model whose parts are alike."""
        total = sum(each.nbytes for each in self._tensors.tensors.values()) // self.ranks.size
        return int(total * SHARES[self.quantization]) if self.quantization else total

    def matrix(
        self, outputs: Mapping[Role, int], inputs: int, layer: int = 0, expert: int = 0
    ) -> Multiplied:
        """This process's part of the weights of some roles, one below the other; `outputs` and
        `inputs` are the whole model's. Raises LoadFailed for one that is missing or of another
        shape."""
        parts = []
        for name, roles in self._named(outputs):
            whole = self._read(name, (sum(roles.values()), inputs), layer, expert)
            for role, span in _spans(roles):
                mine = self._part(whole, name, role, span, layer)
                mine = self._moved(mine)
                stays = role in _NEVER_QUANTISED
                parts.append(mine if stays else quantised(mine, self.quantization))
        joined = join(parts)
        if self.adapters is None or not outputs.keys() <= _ADAPTED:
            return joined
        places, num_mine = self.adapters.places, joined.shape[INPUTS]
        first = 0 if num_mine == inputs else self.ranks.rank * num_mine
        place = places.add(tuple(self._parts(outputs, layer, expert)), num_mine, inputs, first)
        self._note_expert(place, outputs.keys(), layer)
        return Adaptable(joined, place, self.adapters)

    def _parts(self, outputs: Mapping[Role, int], layer: int, expert: int) -> Iterator[Part]:
        """What adapters may change of a product: cut as the matrices themselves are."""
        start = 0
        for name, roles in self._named(outputs):
            size = sum(roles.values())
            order = computed_order(name, self.whole.layers[layer].attention)
            all_rows = torch.arange(size) if order is None else order
            if name.share is not Share.INPUTS:
                column = Dense(all_rows.unsqueeze(1))
                mine = [self._part(column, name, *each, layer).data for each in _spans(roles)]
                all_rows = torch.cat(mine).squeeze(1)
            is_whole = order is None and len(all_rows) == size
            yield Part(
                name.in_hub(layer, expert),
                start,
                start + len(all_rows),
                size,
                None if is_whole else all_rows,
            )
            start += len(all_rows)

    def _note_expert(self, place: Place, roles: AbstractSet[Role], layer: int) -> None:
        """What files may have as one matrix for all experts."""
        assert self.adapters is not None
        if not self.whole.names.of(next(iter(roles))).is_of_experts:
            return
        experts = self.adapters.places.experts.setdefault(layer, ExpertPlaces())
        experts.alternates = any(len(each.roles) > 1 for each in self.whole.names.stacked)
        (experts.down if Role.EXPERT_DOWN in roles else experts.gate_up).append(place)

    def _note_vocabulary(self, adapters: AdapterBank) -> None:
        whole, places = self.whole, adapters.places
        places.vocabulary_size, places.hidden_size = whole.vocabulary_size, whole.hidden_size
        places.embedding = whole.names.of(Role.EMBEDDING).in_hub(0)
        places.head = whole.names.of(Role.HEAD).in_hub(0)
        places.ties_embeddings = whole.ties_embeddings
        places.has_head_bias = whole.has_head_bias

    def dense(self, outputs: Mapping[Role, int], inputs: int, layer: int) -> Tensor:
        """The same as whole numbers."""
        return self.matrix(outputs, inputs, layer).expanded()

    def bias(self, outputs: Mapping[Role, int], layer: int = 0, expert: int = 0) -> Tensor:
        """This process's part of the biases beside the weights of some roles."""
        parts = []
        for name, roles in self._named(outputs):
            whole = self._tensor(f"{name.in_hub(layer, expert)}.bias", (sum(roles.values()),))
            order = computed_order(name, self.whole.layers[layer].attention)
            whole = whole if order is None else whole[order]
            if name.share is Share.INPUTS:
                # The sum over all ranks holds it once.
                parts.append(whole if self.ranks.rank == 0 else torch.zeros_like(whole))
                continue
            column = Dense(whole.unsqueeze(1))
            for role, span in _spans(roles):
                parts.append(self._part(column, name, role, span, layer).data.squeeze(1))
        return self._there(parts[0] if len(parts) == 1 else torch.cat(parts))

    def of_heads(self, role: Role, num_heads: int, layer: int) -> Tensor:
        """This process's part of a weight that has one number for each query head."""
        whole = self.vector(role, (num_heads,), layer).unsqueeze(1)
        name = self.whole.names.of(role)
        return self._part(Dense(whole), name, role, (0, num_heads), layer).data.squeeze(1)

    def vector(
        self, role: Role, shape: tuple[int, ...], layer: int = 0, ending: str = "weight"
    ) -> Tensor:
        """A weight that all ranks hold."""
        name = self.whole.names.of(role)
        tensor = self._tensor(name.whole_in_hub(ending, layer), shape)
        if name.interleaves:
            tensor = tensor[..., neighbours(self.whole.layers[layer].attention)]
        return self._there(tensor)

    def ones(self, shape: tuple[int, ...]) -> Tensor:
        """A weight that multiplies nothing, of the type of the others."""
        like = self._like()
        return self._there(torch.ones(shape, dtype=None if like is None else like.dtype))

    def embedding(self) -> Matrix:
        """[vocabulary, hidden size], of this rank's part; the last rank's may have fewer tokens."""
        name, rows = self.whole.names.of(Role.EMBEDDING), self.whole.vocabulary_size
        matrix = self._read(name, (rows, self.whole.hidden_size), 0, 0)
        return self._moved(self._part(matrix, name, Role.EMBEDDING, (0, rows), 0))

    def table(self, role: Role, rows: int) -> Tensor:
        """A weight [rows, hidden size] that is looked up in, and that all ranks hold."""
        name = f"{self.whole.names.of(role).in_hub(0)}.weight"
        return self._there(self._tensor(name, (rows, self.whole.hidden_size)))

    def rope_divisors(self) -> Tensor | None:
        """What divides the rotary frequencies, if the file says so."""
        divisors = self._tensors.get(self.whole.names.rope_divisors)
        return divisors if isinstance(divisors, Tensor) else None

    def refuse_rest(self) -> None:
        """Raises LoadFailed for a weight that nothing took: without it the output is wrong."""
        names = self.whole.names
        # Tied to the embedding where the config says so.
        needless = {f"{names.of(Role.HEAD).in_hub(0)}.weight", names.rope_divisors}
        rest = sorted(
            name for name in self._tensors.keys() - self._tensors.taken - needless
            if not name.endswith(names.needless) and not name.startswith(self._further())
        )  # fmt: skip
        if rest:
            raise LoadFailed(
                f"the model's files have {len(rest)} weights that this architecture does not know, "
                f"'{rest[0]}' the first: the model is of another shape than its config says"
            )

    def _further(self) -> tuple[str, ...]:
        """What names of layers begin with that are not computed."""
        first = self.whole.names.first_layer + self.whole.num_layers
        name = self.whole.names.of(Role.OUTPUT).hub.partition("{layer}")[0]
        numbers = range(first, first + self.whole.num_further_layers)
        return tuple(f"{stem}{number}." for number in numbers for stem in (name, "blk."))

    def _named(self, outputs: Mapping[Role, int]) -> Iterator[tuple[WeightName, dict[Role, int]]]:
        """The weights in the file that have these roles, each with its own, in order."""
        left = dict(outputs)
        while left:
            name = self.whole.names.of(next(iter(left)))
            yield name, {role: left.pop(role) for role in name.roles if role in left}

    def _read(self, name: WeightName, shape: tuple[int, int], layer: int, expert: int) -> Matrix:
        """[outputs, inputs] in the order in which they are computed."""
        stem = name.in_hub(layer, expert)
        stored = self._stored(f"{stem}.weight")
        # Whatever is packed has been brought into the order of products.
        is_transposed = name.is_transposed and isinstance(stored, Tensor)
        wanted = shape[::-1] if is_transposed else shape
        if tuple(stored.shape) != wanted:
            raise _of_another_shape(f"{stem}.weight", tuple(stored.shape), wanted)
        if isinstance(stored, Tensor):
            matrix: Matrix = Dense(stored.t().contiguous() if is_transposed else stored)
        else:
            matrix = stored
        order = computed_order(name, self.whole.layers[layer].attention)
        return matrix if order is None else matrix.reordered(order)

    def _part(self, whole: M, name: WeightName, role: Role, span: tuple[int, int], layer: int) -> M:
        """This rank's part of the outputs from `start` on."""
        size = self.ranks.size
        if name.share is Share.INPUTS:
            return self._cut(whole, INPUTS, (0, whole.shape[INPUTS]), size)
        if name.share is Share.OUTPUTS:
            return self._cut(whole, OUTPUTS, span, size)
        if name.share is Share.HEADS:
            return self._cut(whole, OUTPUTS, span, self._num_holders(role, layer))
        if name.share is Share.TOKENS and size > 1:
            count, end = self.config.vocabulary_size, whole.shape[OUTPUTS]
            first = min(self.ranks.rank * count, end)
            return whole.part(OUTPUTS, first, min(first + count, end))
        return self._cut(whole, OUTPUTS, span, 1)

    def _cut(self, whole: M, axis: int, span: tuple[int, int], count: int) -> M:
        """This rank's of `count` equal parts, which several ranks hold where they are fewer."""
        start, stop = span
        each = (stop - start) // count
        begin = start + self.ranks.rank * count // self.ranks.size * each
        if begin == 0 and each == whole.shape[axis]:
            return whole
        return whole.part(axis, begin, begin + each)

    def _num_holders(self, role: Role, layer: int) -> int:
        """In how many parts heads are cut."""
        attention = self.whole.layers[layer].attention
        is_of_states = role in (Role.KEY, Role.VALUE)
        num_heads = attention.num_kv_heads if is_of_states else attention.num_heads
        return min(num_heads, self.ranks.size)

    def _tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        stored = self._stored(name)
        if tuple(stored.shape) != shape:
            raise _of_another_shape(name, tuple(stored.shape), shape)
        return stored if isinstance(stored, Tensor) else stored.expanded()

    def _stored(self, name: str) -> Stored:
        if name not in self._tensors:
            raise LoadFailed(f"the model's files have no weight '{name}'")
        return self._tensors[name]

    def _moved(self, matrix: M) -> M:
        return matrix if self._device is None else matrix.to(self._device)

    def _there(self, tensor: Tensor) -> Tensor:
        return tensor if self._device is None else tensor.to(self._device)


class _Noted(Mapping[str, Stored]):
    """Tensors, and which of them have been looked at."""

    def __init__(self, tensors: Mapping[str, Stored]) -> None:
        self.tensors = tensors
        self.taken: set[str] = set()

    def __getitem__(self, name: str) -> Stored:
        tensor = self.tensors[name]
        self.taken.add(name)
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def _spans(roles: Mapping[Role, int]) -> Iterator[tuple[Role, tuple[int, int]]]:
    """Where each role's outputs begin and end in the weight that they share."""
    start = 0
    for role, size in roles.items():
        yield role, (start, start + size)
        start += size


def _of_another_shape(name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> LoadFailed:
    return LoadFailed(f"weight '{name}' is of shape {list(found)}; the config needs {list(wanted)}")

"""From a PEFT folder to an adapter over a model, or over a rank's part of it, with everything
checked that could be wrong."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.api.content import check_readable
from trivet.backends.llm.adapters.adapter import Adapter, AdapterFiles, LowRank, TokenTable
from trivet.backends.llm.adapters.config import CONFIG_FILE, AdapterConfig, read_config
from trivet.backends.llm.adapters.experts import EXPERTS, stack_of
from trivet.backends.llm.adapters.places import ExpertPlaces, Place, Places, is_same
from trivet.backends.llm.text.tokenizer_additions import optional_json

WEIGHTS_FILE = "adapter_model.safetensors"
_PICKLE = "adapter_model.bin"
_PREFIX = "base_model.model."
_DOWN, _UP = "lora_A.weight", "lora_B.weight"
_EMBEDDING_DOWN, _EMBEDDING_UP = "lora_embedding_A", "lora_embedding_B"
_ROWS = "token_adapter.trainable_tokens_delta"
"""Its name notwithstanding: the rows themselves, which replace the base's."""
_ENDINGS = (_DOWN, _UP, _EMBEDDING_DOWN, _EMBEDDING_UP, _ROWS, "base_layer.weight", "weight")


def read_files(folder: Path) -> AdapterFiles:
    """What lies in a folder. Raises LoadFailed."""
    document = optional_json(folder / CONFIG_FILE)
    if not document:
        raise LoadFailed(f"there is no {CONFIG_FILE}, or nothing in it")
    stamps = _stamps(folder)
    path = folder / WEIGHTS_FILE
    if not path.exists():
        if (folder / _PICKLE).exists():
            raise LoadFailed(
                f"'{_PICKLE}' is a pickle, which could run code: save the adapter as safetensors "
                "(PEFT: model.save_pretrained(folder, safe_serialization=True))"
            )
        raise LoadFailed(f"there is no '{WEIGHTS_FILE}'")
    try:
        check_readable(path)
        return AdapterFiles(document, path.read_bytes(), stamps)
    except OSError as error:
        raise LoadFailed(f"'{WEIGHTS_FILE}' cannot be read: {error.strerror}") from error


def read_adapter(files: AdapterFiles, places: Places, max_rank: int, dtype: torch.dtype) -> Adapter:
    """The adapter of some files, on the host. Raises LoadFailed for one that is broken, of another
    base, or of a kind that is not computed."""
    config = read_config(files.document, max_rank)
    modules = _by_module(_tensors(files.weights))
    reading = _Reading(config, places, dtype)
    try:
        for module, tensors in modules.items():
            reading.take(module, tensors)
    except LoadFailed as error:
        base = f"; it says that it is of base '{config.base[:100]}'" if config.base else ""
        raise LoadFailed(f"{error.message}{base}") from error
    return reading.adapter(files)


def _stamps(folder: Path) -> tuple[tuple[int, int, int], ...]:
    found = []
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        with suppress(FileNotFoundError):
            status = (folder / name).stat()
            found.append((status.st_size, status.st_mtime_ns, status.st_ino))
    return tuple(found)


def _tensors(weights: bytes) -> dict[str, Tensor]:
    """Raises LoadFailed, also for numbers that are none: in a batch they would spoil others."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(weights)
    except SafetensorError as error:
        raise LoadFailed(f"'{WEIGHTS_FILE}' cannot be read: {error}") from error
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise LoadFailed(f"weight '{name}' is of {tensor.dtype}, which is no kind of fraction")
        if not tensor.float().isfinite().all():
            raise LoadFailed(f"weight '{name}' has numbers that are NaN or infinite")
    return tensors


def _by_module(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Modules, and their tensors by what is behind the module's name."""
    modules: dict[str, dict[str, Tensor]] = {}
    for name, tensor in sorted(tensors.items()):
        ending = next((each for each in _ENDINGS if name.endswith(f".{each}")), "")
        if not ending:
            raise LoadFailed(
                f"weight '{name}' is of a kind that is not computed; these are: "
                f"{', '.join(_ENDINGS)}"
            )
        module = name.removeprefix(_PREFIX).removesuffix(f".{ending}")
        modules.setdefault(module, {})[ending] = tensor
    if not modules:
        raise LoadFailed(f"'{WEIGHTS_FILE}' has no weights")
    return modules


class _Reading:
    """An adapter in the making."""

    def __init__(self, config: AdapterConfig, places: Places, dtype: torch.dtype) -> None:
        self._config, self._places, self._dtype = config, places, dtype
        self._matrices: dict[tuple[int, int], LowRank] = {}
        self._embedding: TokenTable | None = None
        self._head: TokenTable | None = None
        self._ids = {name: list(ids) for name, ids in config.token_ids.items()}
        self._rank = 0

    def take(self, module: str, tensors: dict[str, Tensor]) -> None:
        """A module's tensors. Raises LoadFailed."""
        places = self._places
        if is_same(module, places.embedding):
            self._embedding = self._table(module, tensors, is_head=False)
        elif places.head and is_same(module, places.head):
            self._head = self._table(module, tensors, is_head=True)
        elif (layer := EXPERTS.fullmatch(module)) and int(layer[1]) in places.experts:
            self._take_experts(module, tensors, places.experts[int(layer[1])])
        else:
            self._take_matrix(module, tensors)

    def adapter(self, files: AdapterFiles) -> Adapter:
        """What was taken. Raises LoadFailed."""
        places = self._places
        embedding, head = self._embedding, self._head
        if places.ties_embeddings and embedding is not None and head is None:
            head = self._tied(embedding)
        sizes = {
            len(each.table) if each and each.table is not None else places.vocabulary_size
            for each in (embedding, head)
        }
        if len(sizes) > 1 and embedding is not None and head is not None:
            raise LoadFailed(
                f"embedding and head have {' and '.join(map(str, sorted(sizes)))} tokens"
            )
        size = max(sizes)
        if size > places.vocabulary_size and (embedding is None or head is None):
            raise LoadFailed(
                f"tokens were added (there are {size}, of the base {places.vocabulary_size}), but "
                "not to both embedding and head (PEFT: save_embedding_layers=True)"
            )
        return Adapter(self._matrices, embedding, head, size, self._rank, files)

    def _tied(self, embedding: TokenTable) -> TokenTable:
        """The head of a model whose head is its embedding."""
        if embedding.low_rank is not None:
            raise LoadFailed(
                f"'{self._places.embedding}' is changed, which is the head, too, in this base: "
                "with PEFT such an adapter gives other answers when it is merged; leave it out of "
                "target_modules"
            )
        return embedding

    def _take_matrix(self, module: str, tensors: dict[str, Tensor]) -> None:
        found = self._places.find(module)
        if found is None:
            raise LoadFailed(f"the base has no matrix '{module}' that can be adapted")
        place, number = found
        if tensors.keys() != {_DOWN, _UP}:
            raise LoadFailed(
                f"'{module}' has {', '.join(sorted(tensors))}: of a layer's matrices changes of "
                "low rank are computed (lora_A and lora_B), of modules_to_save embedding and head"
            )
        shapes = place.whole_inputs, place.parts[number].whole_outputs
        self._put(module, place, number, self._low_rank(module, tensors, *shapes))

    def _take_experts(self, module: str, tensors: dict[str, Tensor], experts: ExpertPlaces) -> None:
        """Of a matrix that all experts have together: PEFT wraps the one around the other, and its
        file says by the shapes alone which one it is."""
        if tensors.keys() != {_DOWN, _UP}:
            raise LoadFailed(
                f"'{module}' has {', '.join(sorted(tensors))}: of experts changes of low rank are "
                "computed (lora_A and lora_B)"
            )
        stack = stack_of(module, tensors[_DOWN], tensors[_UP], experts, self._config)
        for place, low_rank in zip(stack.places, stack.low_ranks(), strict=True):
            for number, up in enumerate(stack.of_parts(low_rank.up)):
                part = LowRank(self._there(module, low_rank.down), self._there(module, up))
                self._put(module, place, number, part)
        self._rank = max(self._rank, stack.rank)

    def _put(self, module: str, place: Place, number: int, low_rank: LowRank) -> None:
        """What is computed here of a change of a whole matrix."""
        part = place.parts[number]
        if (place.index, number) in self._matrices:
            raise LoadFailed(f"'{module}' is there twice")
        if part.order is not None:
            low_rank = LowRank(low_rank.down, low_rank.up[part.order])
        if place.inputs != place.whole_inputs:
            mine = low_rank.down.narrow(1, place.first_input, place.inputs).contiguous()
            low_rank = LowRank(mine, low_rank.up)
        self._matrices[place.index, number] = low_rank

    def _low_rank(
        self, module: str, tensors: Mapping[str, Tensor], inputs: int, outputs: int
    ) -> LowRank:
        rank, scaling = self._config.rank_of(module), self._config.scaling_of(module)
        down, up = tensors[_DOWN], tensors[_UP]
        for name, tensor, shape in (
            (_DOWN, down, (rank, inputs)),
            (_UP, up, (outputs, rank)),
        ):
            if tuple(tensor.shape) != shape:
                raise LoadFailed(
                    f"weight '{module}.{name}' is of shape {list(tensor.shape)}; with this base "
                    f"and rank {rank} ({CONFIG_FILE}) it would be {list(shape)}"
                )
        self._rank = max(self._rank, rank)
        return LowRank(self._there(module, down), self._there(module, up.float() * scaling))

    def _table(self, module: str, tensors: dict[str, Tensor], *, is_head: bool) -> TokenTable:
        places = self._places
        if is_head and places.has_head_bias:
            raise LoadFailed(f"'{module}' has a bias in this base, and cannot be adapted")
        table = tensors.get("weight", tensors.get("base_layer.weight"))
        size = places.vocabulary_size if table is None else len(table)
        if table is not None and (table.dim() != 2 or table.shape[1] != places.hidden_size):
            raise LoadFailed(
                f"weight '{module}' is of shape {list(table.shape)}; the base's rows have "
                f"{places.hidden_size} numbers"
            )
        if size < places.vocabulary_size:
            raise LoadFailed(
                f"'{module}' has {size} tokens, fewer than the base's {places.vocabulary_size}"
            )
        low_rank = None
        if _DOWN in tensors and _UP in tensors and is_head:
            low_rank = self._low_rank(module, tensors, places.hidden_size, size)
        elif _EMBEDDING_DOWN in tensors and _EMBEDDING_UP in tensors and not is_head:
            pair = {_DOWN: tensors[_EMBEDDING_DOWN], _UP: tensors[_EMBEDDING_UP]}
            looked_up = self._low_rank(module, pair, size, places.hidden_size)
            low_rank = LowRank(looked_up.down.t().contiguous(), looked_up.up)
        ids, rows = self._token_rows(module, tensors, size)
        made = None if table is None else self._there(module, table)
        return TokenTable(made, low_rank, ids, rows)

    def _token_rows(
        self, module: str, tensors: dict[str, Tensor], size: int
    ) -> tuple[Tensor | None, Tensor | None]:
        rows = tensors.get(_ROWS)
        if rows is None:
            return None, None
        ids = next((ids for name, ids in self._ids.items() if is_same(module, name)), [])
        if tuple(rows.shape) != (len(ids), self._places.hidden_size) or max(ids, default=0) >= size:
            raise LoadFailed(
                f"'{module}' has rows of shape {list(rows.shape)} for the {len(ids)} token ids of "
                f"trainable_token_indices, of {size} tokens"
            )
        return torch.tensor(ids), self._there(module, rows)

    def _there(self, module: str, tensor: Tensor) -> Tensor:
        made = tensor.to(self._dtype).contiguous()
        if not made.isfinite().all():  # times the zeros of others' rows it would be NaN
            raise LoadFailed(
                f"'{module}' has weights that, scaled, are too large for {self._dtype}, in which "
                f"the base computes: the limit is {torch.finfo(self._dtype).max:.4g}"
            )
        return made

"""A model of transformers that is computed one sequence after the other: with attention of its own
code, or with more to remember than keys and values."""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from trivet.backends.llm.adapters.bank import AdapterBank
from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.device.devices import DEVICE_LOST
from trivet.backends.llm.foreign import bridge
from trivet.backends.llm.foreign.faults import FAULTS
from trivet.backends.llm.foreign.memories import Memory, Part
from trivet.backends.llm.steps.runner import RowFailedError


class SerialModel:
    """Owned by the engine's thread."""

    is_recordable = False
    """It asks for lengths."""

    def __init__(
        self,
        model: Any,
        own_attention: str,
        memory: Memory,
        *,
        gives_positions: bool,
        goes_on_singly: bool,
        adapters: AdapterBank | None = None,
    ) -> None:
        """`own_attention`: transformers' name of the attention that the model computes with.
        `goes_on_singly`: tokens behind a sequence's first part are computed one at a time.
        `adapters`: over the model's products."""
        self._model = model
        self._adapters = adapters
        self._memory = memory
        self._gives_positions = gives_positions
        self._goes_on_singly = goes_on_singly
        self._slices = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._block_size = 0
        bridge.use(model, own_attention)

    def hold(self, cache: KvCache) -> None:
        """Computes over this cache from now on."""
        self._block_size = cache.block_size
        self._memory.hold(cache)

    def forward(self, inputs: StepInputs) -> Tensor:
        """Logits, float32 [R, vocabulary], of `inputs.sample_rows`."""
        wanted = inputs.sample_rows.tolist()
        found: list[Tensor] = []
        begin = 0
        for row, first, part in self._parts(inputs):
            last = first + len(part.token_ids)
            end = begin
            while end < len(wanted) and wanted[end] < last:
                end += 1
            try:
                rows = [place - first for place in wanted[begin:end]]
                found.append(self._compute(part, first, rows))
            except DEVICE_LOST:
                raise
            except FAULTS as error:
                raise RowFailedError(row, error) from error
            begin = end
        return torch.cat(found)

    def _parts(self, inputs: StepInputs) -> Iterator[tuple[int, int, Part]]:
        """What is computed at once, with its sequence's row and the place of its first token in the
        step."""
        starts, size = inputs.query_starts.tolist(), self._block_size
        for row, length in enumerate(inputs.sequence_lengths.tolist()):
            begin, end = starts[row], starts[row + 1]
            done = length - (end - begin)
            table = inputs.block_tables[row]
            places = torch.arange(length, device=table.device)
            slots = table[places // size].long() * size + places % size
            blocks = table.tolist()
            step = 1 if done and self._goes_on_singly else max(end - begin, 1)
            for first in range(begin, end, step):
                start = done + first - begin
                yield (
                    row,
                    first,
                    Part(
                        inputs.token_ids[first : first + step],
                        start,
                        blocks[0],
                        blocks[start // size : -(-(start + step) // size)],
                        inputs.slot_mapping[first : first + step],
                        slots[: start + step],
                    ),
                )

    def _compute(self, part: Part, first: int, rows: list[int]) -> Tensor:
        """Logits of some of its tokens, of which the first has that place in the step."""
        given = self._memory.begin(part)
        if self._adapters is not None:
            # Its sequence's adapter is every token's, also of those that are computed anew.
            self._adapters.focus(torch.full_like(given.token_ids, first))
        earlier = len(given.token_ids) - len(part.token_ids)
        arguments: dict[str, Any] = {}
        if self._gives_positions:
            device = given.token_ids.device
            positions = torch.arange(part.start - earlier, part.end, device=device)
            arguments["position_ids"] = positions.unsqueeze(0)
        places = torch.tensor([row + earlier for row in rows], dtype=torch.int64)
        places = places.to(given.token_ids.device)
        if self._slices:
            arguments["logits_to_keep"] = places
        output = self._model(input_ids=given.token_ids.unsqueeze(0), **given.arguments, **arguments)
        self._memory.end(part, given, output)
        logits: Tensor = output.logits[0]
        return (logits if self._slices else logits[places]).float()

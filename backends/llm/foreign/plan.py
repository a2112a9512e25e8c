"""How a model of transformers is computed. Nothing of transformers is imported for this."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from trivet.backends.llm.adapters.bank import AdapterBank
from trivet.backends.llm.attention.base import Attention
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.foreign.config import ForeignConfig
from trivet.backends.llm.steps.runner import HeldModel


class MakeModel(Protocol):
    """Makes what computes a model."""

    def __call__(
        self, cache: KvCache, attention: Attention, adapters: AdapterBank | None = None, /
    ) -> HeldModel:
        """Over a cache; it may use the attention over it or not. `adapters`: over its products."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A way of computing a model."""

    name: str
    """In the log."""
    config: ForeignConfig
    make: MakeModel


Pixels = Mapping[str, Tensor]
"""An image as a model reads it: [1, tiles, ...] each."""


class Sight(Protocol):
    """The part of a model that sees. `pixels` may be called in any thread."""

    @property
    def image_token_id(self) -> int:
        """What stands in a prompt for each row of an image."""

    @property
    def rows_per_tile(self) -> int:
        """Embeddings of a tile."""

    def open(self) -> None:
        """To be called when the model's layers have been given another attention: the encoder's
        sees all of an image."""

    def modules(self) -> Iterator[nn.Module]:
        """That text does not pass through."""

    def pixels(self, file: bytes, num_rows: int) -> Pixels:
        """Of an image's file, of which so many rows are expected. Raises InvalidRequest, and
        BackendFailed for another number of them than the prompt has places for."""

    def look(self, pixels: Pixels, first: int) -> Tensor:
        """Embeddings [rows, width], on the host, of a few tiles from that one on. Raises
        InvalidRequest for a tile that the model takes for none."""

    def look_at_most(self) -> None:
        """As much as in any step, so that the memory which it takes is known."""

    def show(self, places: Tensor, rows: Tensor) -> None:
        """The next steps have these embeddings at these places."""

    def show_nothing(self) -> None:
        """The next steps have tokens alone."""


class ModelTensors(dict[str, Tensor]):
    """A model's tensors, with the model that they are in."""

    def __init__(self, model: Any, plan: Plan, sight: Sight | None = None) -> None:
        super().__init__(model.named_parameters())
        self.model = model
        self.plan = plan
        self.sight = sight

"""The part of a model of transformers that sees: pixels to embeddings, and those into a step in the
place of the tokens that stand for them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from trivet.backends.api import BackendFailed, InvalidRequest, LoadFailed
from trivet.backends.hugging_face.image_bounds import Bounds
from trivet.backends.hugging_face.image_decoding import Decoder
from trivet.backends.hugging_face.image_preprocessing import Preprocessor
from trivet.backends.llm.device.border import note_wait
from trivet.backends.llm.foreign import bridge
from trivet.backends.llm.foreign.plan import Pixels
from trivet.backends.llm.text.image_layout import ImageLayout

TILES_AT_ONCE = {"cpu": 1, "cuda": 8}
"""So few that those who wait for their next token notice little."""
_TRIED_SIZES = ((67, 41), (41, 160), (50, 50))
"""Width and height of images that a processor is tried with."""


class ModelSight:
    """Of one model. See Sight."""

    def __init__(
        self, model: Any, folder: Path, layout: ImageLayout, bounds: Bounds, own_attention: str
    ) -> None:
        """`own_attention`: transformers' name of the attention that its encoder computes with.
        Raises LoadFailed where the model and its processor do not belong together."""
        self._model = model
        self._own_attention = own_attention
        self._encoder = model.get_encoder(modality="image")
        self._layout = layout
        self._decode = Decoder(bounds)
        self._preprocess = Preprocessor(folder)
        self._places: Tensor | None = None
        self._rows: Tensor | None = None
        model.get_input_embeddings().register_forward_hook(self._put)
        self.open()
        self._try()

    @property
    def image_token_id(self) -> int:
        """See Sight."""
        return self._layout.image_token_id

    @property
    def rows_per_tile(self) -> int:
        """See Sight."""
        return self._layout.rows_per_tile

    @property
    def tiles_at_once(self) -> int:
        """How many it looks at in one step."""
        return TILES_AT_ONCE.get(self._model.device.type, 1)

    def open(self) -> None:
        """See Sight."""
        bridge.use(self._encoder, self._own_attention)

    def modules(self) -> Iterator[nn.Module]:
        """See Sight."""
        yield from self._encoder.modules()
        for name, module in self._model.named_modules():
            if any(part in name.split(".") for part in ("connector", "multi_modal_projector")):
                yield module

    def pixels(self, file: bytes, num_rows: int) -> Pixels:
        """See Sight."""
        made = self._preprocess(self._decode(file))
        pixels = {name: torch.from_numpy(values) for name, values in made.items()}
        if num_tiles(pixels) * self.rows_per_tile != num_rows:
            raise BackendFailed(
                f"the image processor makes {num_tiles(pixels)} tiles of an image, for which the "
                f"prompt has {num_rows} tokens"
            )
        return pixels

    @torch.no_grad()
    def look(self, pixels: Pixels, first: int) -> Tensor:
        """See Sight."""
        end = first + self.tiles_at_once
        device = self._model.device
        given = {name: values[:, first:end].to(device) for name, values in pixels.items()}
        found = self._model.get_image_features(**given).pooler_output
        rows = torch.cat(list(found)) if isinstance(found, list | tuple) else found.flatten(0, -2)
        if len(rows) != num_tiles(given) * self.rows_per_tile:
            raise InvalidRequest(
                "a part of an image is of one colour that the model takes for the lack of an image"
            )
        if rows.is_cuda:
            note_wait()
        return rows.cpu()

    def look_at_most(self) -> None:
        """See Sight."""
        one = self._tried(*_TRIED_SIZES[0])
        count = self.tiles_at_once
        self.look(
            {name: values[:, :1].repeat_interleave(count, 1) for name, values in one.items()}, 0
        )

    def show(self, places: Tensor, rows: Tensor) -> None:
        """See Sight."""
        embedding = self._model.get_input_embeddings().weight
        self._places = places.to(embedding.device)
        self._rows = rows.to(embedding.device, embedding.dtype)

    def show_nothing(self) -> None:
        """See Sight."""
        self._places = self._rows = None

    def _put(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:  # noqa: ARG002
        if self._places is not None and self._rows is not None:
            output[0].index_copy_(0, self._places, self._rows)
        return output

    def _try(self) -> None:
        """Whether the prompt's marks are those of this processor and this encoder."""
        for size in _TRIED_SIZES:
            made, told = num_tiles(self._tried(*size)), self._layout.grid(*size).num_tiles
            if made != told:
                raise LoadFailed(
                    f"the model's image processor cuts an image of {size[0]} x {size[1]} into "
                    f"{made} tiles, not {told}: its settings are not known to trivet"
                )
        features = self._model.get_image_features(
            **{name: values[:, :1] for name, values in self._tried(*_TRIED_SIZES[0]).items()}
        )
        rows = sum(map(len, features.pooler_output))
        if rows != self.rows_per_tile:
            raise LoadFailed(
                f"image_seq_len is {self.rows_per_tile} (processor_config.json), but the "
                f"model makes {rows} embeddings of a tile"
            )

    def _tried(self, width: int, height: int) -> Pixels:
        image = Image.new("RGB", (width, height), (200, 90, 30))
        return {name: torch.from_numpy(values) for name, values in self._preprocess(image).items()}


def num_tiles(pixels: Pixels) -> int:
    """Of an image."""
    return int(pixels["pixel_values"].shape[1])

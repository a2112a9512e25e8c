"""What stands for images in a prompt: the marks that a model's processor in transformers writes,
and how many tokens of each are the image's own. Knows sizes, never pixels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trivet.backends.api import InvalidRequest, LoadFailed
from trivet.backends.llm.about import SEEING
from trivet.backends.llm.text.literal import Prompt
from trivet.backends.llm.text.tokenizer_additions import optional_json

_FAKE, _IMAGE, _GLOBAL = "<fake_token_around_image>", "<image>", "<global-img>"
_ROWS = 169
_LONGEST, _TILE, _LARGEST = 4 * 364, 364, 4096
"""What transformers takes where a folder does not say."""


@dataclass(frozen=True, slots=True)
class Grid:
    """How an image is cut: so many rows and columns of tiles, and the whole of it besides; none and
    none where it is not cut."""

    rows: int
    columns: int

    @property
    def num_tiles(self) -> int:
        """That the model sees."""
        return self.rows * self.columns + 1


@dataclass(frozen=True, slots=True)
class ImageLayout:
    """Of one model."""

    image_token: str
    image_token_id: int
    fake_token: str
    global_token: str
    rows_per_tile: int
    """Tokens that are a tile's own."""
    longest_edge: int
    """Images are made so large; 0: they are left as they are."""
    tile_edge: int
    splits: bool
    """Whether they are cut at all."""

    @property
    def control_texts(self) -> tuple[str, ...]:
        """What must not get a meaning when a client writes it."""
        return self.image_token, self.fake_token, self.global_token

    def grid(self, width: int, height: int) -> Grid:
        """Of an image of this size, in the steps of transformers' image processor."""
        if not self.splits:
            return Grid(0, 0)
        if self.longest_edge:
            width, height = _scaled(width, height, self.longest_edge)
        edge, ratio = self.tile_edge, width / height
        if width >= height:
            width = math.ceil(width / edge) * edge
            height = math.ceil(int(width / ratio) / edge) * edge
        else:
            height = math.ceil(height / edge) * edge
            width = math.ceil(int(height * ratio) / edge) * edge
        if width <= edge and height <= edge:
            return Grid(0, 0)
        return Grid(height // edge, width // edge)

    def num_tokens(self, grid: Grid) -> int:
        """That are the image's own."""
        return self.rows_per_tile * grid.num_tiles

    def text(self, grid: Grid) -> str:
        """What an image is in a prompt."""
        tile = self.image_token * self.rows_per_tile
        whole = f"{self.fake_token}{self.global_token}{tile}{self.fake_token}"
        if not grid.rows:
            return whole
        rows = (
            "".join(
                f"{self.fake_token}<row_{row}_col_{column}>{tile}"
                for column in range(1, grid.columns + 1)
            )
            for row in range(1, grid.rows + 1)
        )
        return "".join(f"{row}\n" for row in rows) + f"\n{whole}"

    def placed(self, prompt: str, grids: Sequence[Grid]) -> str:
        """A rendered conversation with its images in their places. Raises InvalidRequest where the
        chat template has not made one for each."""
        pieces = prompt.pieces if isinstance(prompt, Prompt) else [prompt]
        count = sum(piece.count(self.image_token) for piece in pieces)
        if count != len(grids):
            raise InvalidRequest(
                f"messages: the chat template makes places for {count} images of {len(grids)}"
            )
        texts = iter(grids)
        ends: list[int] = []
        written: list[str] = []
        size = 0
        for piece in pieces:
            first, *others = piece.split(self.image_token)
            whole = first + "".join(self.text(next(texts)) + other for other in others)
            written.append(whole)
            size += len(whole)
            ends.append(size)
        placed = Prompt("".join(written))
        placed.cuts = tuple(ends[:-1])
        return placed


def read_layout(folder: Path) -> ImageLayout | None:
    """Of a Hugging Face folder; None of a model that takes no images. Raises LoadFailed."""
    config = optional_json(folder / "config.json")
    if _first(config.get("architectures")) not in SEEING:
        return None
    processor = optional_json(folder / "processor_config.json")
    of_images = processor.get("image_processor") or optional_json(
        folder / "preprocessor_config.json"
    )
    if not isinstance(of_images, Mapping) or not of_images:
        raise LoadFailed(
            "the folder has neither preprocessor_config.json nor an image_processor in "
            "processor_config.json, which say how images are made the model's input"
        )
    tokenizer = optional_json(folder / "tokenizer_config.json")
    named = {
        **tokenizer,
        **_mapping(tokenizer.get("extra_special_tokens")),
        **_mapping(tokenizer.get("model_specific_special_tokens")),
    }
    # The older of the two classes knows no names but these.
    if processor.get("processor_class") == "Idefics3Processor":
        named = {}
    try:
        size = of_images.get("size", {"longest_edge": _LONGEST})
        return ImageLayout(
            _token(named, "image_token", _IMAGE),
            int(config.get("image_token_id", 128257)),
            _token(named, "fake_image_token", _FAKE),
            _token(named, "global_image_token", _GLOBAL),
            int(processor.get("image_seq_len", _ROWS)),
            int(size["longest_edge"]) if of_images.get("do_resize", True) else 0,
            int(of_images.get("max_image_size", {"longest_edge": _TILE})["longest_edge"]),
            bool(of_images.get("do_image_splitting", True)),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LoadFailed(
            "preprocessor_config.json or processor_config.json does not say how images are cut "
            f"({type(error).__name__}: {error})"
        ) from None


def _scaled(width: int, height: int, longest: int) -> tuple[int, int]:
    """To a longest edge; an odd shorter one grows by one."""
    ratio = width / height
    if width >= height:
        width, height = longest, int(longest / ratio)
        height += height % 2
    else:
        width, height = int(longest * ratio), longest
        width += width % 2
    width, height = max(width, 1), max(height, 1)
    ratio = width / height
    if width >= height and width > _LARGEST:
        width, height = _LARGEST, int(_LARGEST / ratio)
    elif height > width and height > _LARGEST:
        width, height = int(_LARGEST * ratio), _LARGEST
    return max(width, 1), max(height, 1)


def _token(named: Mapping[str, Any], name: str, usual: str) -> str:
    found = named.get(name, usual)
    return str(found["content"] if isinstance(found, Mapping) else found)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _first(value: Any) -> str:
    return str(value[0]) if isinstance(value, list) and value else ""

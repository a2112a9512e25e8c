"""Encoded files to pixels, as transformers' pipelines read them, within bounds."""

import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from trivet.backends.api import InvalidRequest
from trivet.backends.hugging_face.image_bounds import Bounds

_TRIED = 256
_WITH_SCANS = ("JPEG", "MPO")
_SCAN = b"\xff\xda"
"""What begins a scan of a JPEG: within one these bytes do not stand together."""
_ORIENTED = (b"eXIf", b"Raw profile type exif", b"com.adobe.xmp")
"""Where a PNG may say how it is to be turned."""
_LYING = (5, 6, 7, 8)
"""Orientations (EXIF) whose width is the image's height."""
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{32,}={0,2}")
_TOO_MANY = (Image.DecompressionBombError, Image.DecompressionBombWarning)
"""Pillow's own limit, which no model's bounds go beyond."""
_DAMAGED = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What Pillow's readers raise for files that are not whole, or not what they say."""


class Decoder:
    """Used by several threads."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        # How many pixels are too many is decided by the bounds.
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

    def __call__(self, data: bytes) -> Any:
        """An RGB image, upright. Raises InvalidRequest.

        Sizes are checked by what the file's head says, before memory is taken for them.
        """
        with self._opened(data) as image:
            # Copies of large images are not made where nothing changes.
            ImageOps.exif_transpose(image, in_place=True)
            image.load()
            return image if image.mode == "RGB" else image.convert("RGB")

    def measure(self, data: bytes) -> tuple[int, int]:
        """Width and height of the image upright, by the file's head: pixels are not decoded, and
        what is wrong with them shows later. Raises InvalidRequest for what the head tells."""
        with self._opened(data) as image:
            width, height = image.size
            if image.format == "PNG" and not any(each in data for each in _ORIENTED):
                return width, height  # Pillow would decode it to look behind its pixels
            is_lying = image.getexif().get(ExifTags.Base.Orientation) in _LYING
            return (height, width) if is_lying else (width, height)

    @contextmanager
    def _opened(self, data: bytes) -> Iterator[Any]:
        """Within bounds, not decoded yet."""
        bounds = self._bounds
        bounds.check_file(len(data))
        try:
            with Image.open(BytesIO(data), formats=bounds.formats) as image:
                bounds.check_size(*image.size)
                if image.format in _WITH_SCANS:
                    bounds.check_passes(data.count(_SCAN), *image.size)
                yield image
        except UnidentifiedImageError:
            raise InvalidRequest(_unknown(data, bounds)) from None
        except _TOO_MANY as error:
            raise InvalidRequest(
                f"{error}; the model takes {bounds.max_pixels} (its parameter max_pixels)"
            ) from None
        except _DAMAGED as error:
            raise InvalidRequest(f"the file cannot be decoded: {str(error)[:200]}") from None


def _unknown(data: bytes, bounds: Bounds) -> str:
    if not data:
        return "it is empty; the bytes of an image file are needed"
    taken = ", ".join(bounds.formats)
    text = f"{len(data)} bytes that are no image file of a kind that the model takes: {taken}"
    if _BASE64.fullmatch(data[:_TRIED]):
        text += ". They look like base64; send the bytes of the file as binary data"
    return text

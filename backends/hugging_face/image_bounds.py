"""How large an image may be before it is decoded, and what it may be. Pure."""

from dataclasses import dataclass
from typing import Self

from trivet.backends.api import InvalidConfig, InvalidRequest, parameter
from trivet.backends.hugging_face.folder import number_of
from trivet.protos.model_config_pb2 import ModelConfig

USUAL_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")
"""What browsers show and people have, by Pillow's names."""
KNOWN_FORMATS = (*USUAL_FORMATS, "AVIF", "PPM", "TIFF")
MAX_IMAGE_BYTES = 32 << 20
MAX_PIXELS = 1 << 25
"""Of most cameras' largest photographs. Measured: decoding and preprocessing by NumPy take 13 bytes
a pixel, 450 MB for so many, on each thread that does."""
_MAX_PASSES = 16
"""Over an image of so many pixels: progressive JPEGs of usual programs have ten scans. Each goes
over all pixels, so smaller images may have more."""
MAX_ASPECT_RATIO = 50
"""Preprocessing scales the shorter side up to some hundred pixels: a line one pixel wide would take
gigabytes."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of a model."""

    formats: tuple[str, ...] = USUAL_FORMATS
    max_bytes: int = MAX_IMAGE_BYTES
    max_pixels: int = MAX_PIXELS
    max_aspect_ratio: int = MAX_ASPECT_RATIO

    @classmethod
    def of(cls, config: ModelConfig) -> Self:
        """As parameters of a config say. Raises InvalidConfig."""
        return cls(
            _formats(config),
            number_of(config, "max_image_bytes", MAX_IMAGE_BYTES),
            number_of(config, "max_pixels", MAX_PIXELS),
            number_of(config, "max_aspect_ratio", MAX_ASPECT_RATIO),
        )

    def check_file(self, num_bytes: int) -> None:
        """Raises InvalidRequest."""
        if num_bytes > self.max_bytes:
            raise InvalidRequest(
                f"{num_bytes} bytes are more than the {self.max_bytes} that the model takes (its "
                "parameter max_image_bytes)"
            )

    def check_size(self, width: int, height: int) -> None:
        """Raises InvalidRequest."""
        if width * height > self.max_pixels:
            raise InvalidRequest(
                f"{width} x {height} are {width * height} pixels, more than the "
                f"{self.max_pixels} that the model takes (its parameter max_pixels)"
            )
        if max(width, height) > min(width, height) * self.max_aspect_ratio:
            raise InvalidRequest(
                f"one side of {width} x {height} is more than {self.max_aspect_ratio} times the "
                "other (the model's parameter max_aspect_ratio)"
            )

    def check_passes(self, num_passes: int, width: int, height: int) -> None:
        """How often decoding goes over the pixels. Raises InvalidRequest."""
        most = self.max_pixels * _MAX_PASSES // max(1, width * height)
        if num_passes > most:
            raise InvalidRequest(
                f"{width} x {height} pixels in {num_passes} scans, of which the model decodes "
                f"{most} for an image of this size; save it with fewer scans, or raise the model's "
                "parameter max_pixels"
            )


def _formats(config: ModelConfig) -> tuple[str, ...]:
    text = parameter(config, "image_formats")
    if not text:
        return USUAL_FORMATS
    given = tuple(each.strip().upper() for each in text.split(","))
    if unknown := [each for each in given if each not in KNOWN_FORMATS]:
        raise InvalidConfig(
            f"model '{config.name}': parameter image_formats has {unknown}; it may list "
            f"{', '.join(KNOWN_FORMATS)}"
        )
    return given

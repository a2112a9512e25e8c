"""Decodes PNG pictures with the standard library and numpy, and scales them."""

import struct
import zlib

import numpy as np
import triton_python_backend_utils as pb_utils

HEIGHT, WIDTH = 48, 192
MAX_PIXELS = 16_000_000
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type: grey, RGB, each with and without alpha


class TritonPythonModel:
    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        data = pb_utils.get_input_tensor_by_name(request, "png").as_numpy().ravel()[0]
        try:
            line = scaled(decoded(data))
        except (ValueError, zlib.error, struct.error) as error:
            failure = pb_utils.TritonError(f"png: {error}", pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=failure)
        return pb_utils.InferenceResponse([pb_utils.Tensor("line", line)])


def decoded(data):
    """uint8 [height, width, 3]. Raises ValueError, zlib.error, struct.error."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("this is not a PNG file")
    width, height, bits, colour, _, _, interlace = struct.unpack(">IIBBBBB", data[16:29])
    if bits != 8 or interlace or colour not in CHANNELS:
        raise ValueError("only 8 bits a channel, not interlaced, without a palette")
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels are more than {MAX_PIXELS}")
    step = CHANNELS[colour]
    size = height * (1 + width * step)
    raw = zlib.decompressobj().decompress(b"".join(chunks(data, b"IDAT")), size)
    if len(raw) != size:
        raise ValueError("the picture is cut off")
    rows = np.frombuffer(raw, np.uint8).reshape(height, 1 + width * step)
    pixels = unfiltered(rows, step).reshape(height, width, step)
    return pixels[..., :3] if step >= 3 else np.repeat(pixels[..., :1], 3, axis=2)


def chunks(data, wanted):
    """The contents of the chunks of one kind."""
    position = 8
    while position + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        if kind == wanted:
            yield data[position + 8 : position + 8 + length]
        position += 12 + length


def unfiltered(rows, step):
    """Rows without their filters (PNG specification, section 9)."""
    made = np.zeros((len(rows) + 1, rows.shape[1] - 1), np.uint8)
    for index, row in enumerate(rows):
        above, line, kind = made[index], row[1:].copy(), row[0]
        if kind == 2:
            line += above
        elif kind in (1, 3, 4):
            restore(line, above, int(kind), step)
        elif kind:
            raise ValueError(f"there is no filter {kind}")
        made[index + 1] = line
    return made[1:]


def restore(line, above, kind, step):
    """Adds to each byte what the filter predicts from its neighbours."""
    for at in range(len(line)):
        left = int(line[at - step]) if at >= step else 0
        up = int(above[at])
        if kind == 1:
            guess = left
        elif kind == 3:
            guess = (left + up) // 2
        else:
            corner = int(above[at - step]) if at >= step else 0
            estimate = left + up - corner
            guess = min((left, up, corner), key=lambda value: abs(estimate - value))
        line[at] = (int(line[at]) + guess) & 255


def scaled(pixels):
    """float32 [3, 48, 192], -1 to 1, by the nearest pixel."""
    rows = np.arange(HEIGHT) * pixels.shape[0] // HEIGHT
    columns = np.arange(WIDTH) * pixels.shape[1] // WIDTH
    small = pixels[rows][:, columns].astype(np.float32)
    return np.ascontiguousarray((small / 127.5 - 1).transpose(2, 0, 1))

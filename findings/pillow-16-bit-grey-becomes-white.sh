#!/usr/bin/env bash
# pillow 13.0.0 under CPython 3.11: what convert("RGB") makes of PNG files of 16 bits a channel.
#
# Situation: images of clients are brought to RGB for a model, as transformers' load_image and most
# servers do: Image.open(file).convert("RGB"). PNG files may have 16 bits a channel (scanners, microscopes,
# depth maps).
# Guess: they come out as 8 bits with the same picture, or raise.
# Seen: colour and grey with alpha do, by their upper byte. Grey alone is read as mode I;16, and convert
# cuts all values off at 255: of five even steps from black to white the four upper ones are white. The
# same picture, saved once with an alpha channel and once without, is right once and white once; no warning.
# So: a model answers about a white page. Scale mode I;16 by hand (divide by 257) before convert, or tell
# clients to.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pillow==13.0.0
cat > "$folder/convert.py" <<'END'
import struct
import zlib
from io import BytesIO

from PIL import Image

STEPS = (0, 16384, 32768, 49152, 65535)


def png(color_type, pixels):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + b"".join(struct.pack(">H", value) for pixel in pixels for value in pixel)
    head = struct.pack(">IIBBBBB", len(pixels), 1, 16, color_type, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


for kind, color_type, pixels in (
    ("grey", 0, [(step,) for step in STEPS]),
    ("grey and alpha", 4, [(step, 65535) for step in STEPS]),
    ("colour", 2, [(step, step, step) for step in STEPS]),
):
    image = Image.open(BytesIO(png(color_type, pixels)))
    print(kind, image.mode, list(image.convert("RGB").tobytes()[::3]))
END
"$folder/venv/bin/python" "$folder/convert.py" > "$folder/seen"
cat "$folder/seen"
diff "$folder/seen" - <<'END'
grey I;16 [0, 255, 255, 255, 255]
grey and alpha RGBA [0, 64, 128, 192, 255]
colour RGB [0, 64, 128, 192, 255]
END
echo "as described"

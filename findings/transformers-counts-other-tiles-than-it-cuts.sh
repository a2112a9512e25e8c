#!/usr/bin/env bash
# transformers 5.23.0 (with numpy 2.4.6, pillow 13.0.0), no torch, under CPython 3.11: how many tiles an
# image of Idefics3's and SmolVLM's processors has.
#
# Situation: a server wants to know how many tokens an image takes before it is processed. The image
# processor has a method for that, get_number_of_image_patches(height, width): tiles, rows and columns.
# Guess: it tells what the processor then makes.
# Seen: the shorter side is first made to fit the longer one, which grows to a multiple of the tile's edge;
# the method computes that and overwrites it with the side before. Wherever size.longest_edge is no multiple
# of max_image_size.longest_edge (1280 and 364, say) it may tell a row too few: 9 tiles, where 13 are made.
# And of an image that is not cut it tells 0 tiles, where one is made.
# So: a prompt with as many places as it tells does not fit the model's embeddings. Count what the processor
# has made (rows, cols), or do its steps by oneself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.23.0 numpy==2.4.6 pillow==13.0.0
cat > "$folder/count.py" <<'END'
from PIL import Image
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

for longest, size in ((1456, (1920, 1080)), (1280, (1920, 1080)), (364, (90, 90))):
    processor = Idefics3ImageProcessorPil(
        size={"longest_edge": longest}, max_image_size={"longest_edge": 364}
    )
    made = processor(images=Image.new("RGB", size), return_row_col_info=True)
    width, height = size
    told = processor.get_number_of_image_patches(height, width)
    print(longest, "told", told, "made", (len(made["pixel_values"][0]), made["rows"][0][0], made["cols"][0][0]))
END
"$folder/venv/bin/python" "$folder/count.py" 2> "$folder/errors" > "$folder/seen" || { cat "$folder/errors"; exit 1; }
cat "$folder/seen"
diff "$folder/seen" - <<'END'
1456 told (13, 3, 4) made (13, 3, 4)
1280 told (9, 2, 4) made (13, 3, 4)
364 told (0, 0, 0) made (1, 0, 0)
END
echo "as described"

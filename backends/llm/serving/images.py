"""Images of conversations, on the server's side: measured by their heads and given their places in
the prompt. The engine makes pixels of the same bytes, and says what cannot be decoded."""

import binascii
from base64 import b64decode
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b

from trivet.backends.api import ChatInput, Image, InvalidRequest, ModelNotReady
from trivet.backends.hugging_face.image_bounds import Bounds
from trivet.backends.llm.text.chat import ChatTemplate
from trivet.backends.llm.text.image_layout import Grid, ImageLayout

NUM_THREADS = 2
"""An image takes three times its file meanwhile."""
DIGEST_BYTES = 32


class ImageReader:
    """Owns its threads; called on the event loop but for `render`."""

    def __init__(self, layout: ImageLayout, bounds: Bounds, max_images: int) -> None:
        # Imports Pillow: only where a model reads images.
        from trivet.backends.hugging_face.image_decoding import Decoder

        self._layout = layout
        self._bounds = bounds
        self._decoder = Decoder(bounds)
        self._max_images = max_images
        self.threads = ThreadPoolExecutor(NUM_THREADS, "images")
        self._is_closed = False

    def check(self, images: Sequence[Image], template: ChatTemplate) -> None:
        """Before any is looked at. Raises InvalidRequest, and ModelNotReady once closed."""
        if self._is_closed:
            raise ModelNotReady("the model is being unloaded and reads no more images")
        if not template.shows_images:
            raise InvalidRequest(
                f"{images[0].where}: the model's chat template has no place for images; send text "
                "alone"
            )
        if len(images) > self._max_images:
            raise InvalidRequest(
                f"messages: {len(images)} images; a conversation may have {self._max_images} "
                "(model parameter limit_mm_per_prompt)"
            )

    def render(self, chat: ChatInput, images: Sequence[Image], template: ChatTemplate) -> str:
        """The prompt. Takes long: called in one of the threads. Raises InvalidRequest."""
        grids = [self._read(image) for image in images]
        return self._layout.placed(template.render(chat), grids)

    def close(self) -> None:
        """Takes no further conversation. Those that wait are read: somebody waits for an answer,
        and a call that is cancelled gives none."""
        self._is_closed = True
        self.threads.shutdown(wait=False)

    def _read(self, image: Image) -> Grid:
        try:
            file = self._bytes(image.base64)
            width, height = self._decoder.measure(file)
        except InvalidRequest as error:
            raise InvalidRequest(f"{image.where}: {error.message}") from None
        grid = self._layout.grid(width, height)
        image.file = file
        image.digest = blake2b(file, digest_size=DIGEST_BYTES).digest()
        image.num_tokens = self._layout.num_tokens(grid)
        return grid

    def _bytes(self, text: str) -> bytes:
        self._bounds.check_file(len(text) // 4 * 3 - text.count("=", -2))
        try:
            return b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidRequest(f"what stands behind base64, is none: {error}") from None

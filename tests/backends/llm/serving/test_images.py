"""Images of conversations, as they come: what is read, and what is refused before it is decoded."""

import struct
import threading
import zlib
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from patience import patience
from PIL import Image as Pillow
from PIL import ImageOps

from trivet.backends.api import ChatInput, Image, InvalidRequest, ModelNotReady
from trivet.backends.hugging_face.image_bounds import Bounds
from trivet.backends.llm.serving.images import NUM_THREADS, ImageReader
from trivet.backends.llm.settings import IMAGE_FORMATS
from trivet.backends.llm.text.chat import ChatTemplate
from trivet.backends.llm.text.image_layout import ImageLayout

LAYOUT = ImageLayout("<image>", 7, "<fake>", "<global>", 2, 64, 32, splits=True)
SOURCE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endfor %}"
)
BOUNDS = Bounds(IMAGE_FORMATS, max_bytes=4000, max_pixels=5000)


@pytest.fixture
def reader() -> ImageReader:
    return ImageReader(LAYOUT, BOUNDS, 2)


def template(source: str = SOURCE) -> ChatTemplate:
    return ChatTemplate(source, {}, LAYOUT.control_texts, image_token=LAYOUT.image_token)


def saved(image: Pillow.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def conversation(*files: bytes | str) -> ChatInput:
    parts: list[dict[str, Any]] = []
    for number, file in enumerate(files):
        text = file if isinstance(file, str) else b64encode(file).decode()
        image = Image(f"messages[0].content[{number}]", text)
        parts.append({"type": "image", "image": image})
    return ChatInput([{"role": "user", "content": [*parts, {"type": "text", "text": "?"}]}])


def read(reader: ImageReader, *files: bytes | str) -> tuple[str, list[Image]]:
    chat = conversation(*files)
    return reader.render(chat, chat.images, template()), chat.images


def png_that_says(width: int, height: int) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rest = chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + rest


GREEN = Pillow.new("RGB", (40, 30), (10, 200, 30))
NOISE = saved(Pillow.effect_noise((60, 60), 90))


def test_an_image_gets_its_tokens_its_bytes_and_a_digest(reader: ImageReader) -> None:
    file = saved(GREEN)

    text, (image, other) = read(reader, file, saved(GREEN, "JPEG"))

    assert (image.file, image.num_tokens) == (file, 10)
    assert text.count("<image>") == 20
    assert text.startswith("<fake><row_1_col_1><image><image><fake><row_1_col_2>")
    assert image.digest != other.digest
    assert read(reader, file)[1][0].digest == image.digest


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("!!!not base64!!!", "is none"),
        ("QUJD\nREVG", "is none"),
        ("", "it is empty"),
        ("é" * 40, "is none"),
        (b"A text, whatever its type says.", "no image file of a kind that the model takes"),
        (saved(GREEN, "GIF"), "no image file of a kind that the model takes: JPEG, PNG, WEBP"),
        (saved(GREEN, "BMP"), "no image file of a kind"),
        (saved(GREEN)[:25], "cannot be decoded"),
        (png_that_says(50_000, 50_000), "max_pixels"),
        (png_that_says(2**31 - 1, 2**31 - 1), "max_pixels"),
        (png_that_says(2000, 2), "max_aspect_ratio"),
        (bytes(4001), "4001 bytes are more than the 4000"),
        ("A" * 6000, "max_image_bytes"),
    ],
)
def test_what_is_no_image_or_too_large_is_refused_by_its_place(
    reader: ImageReader, file: bytes | str, told: str
) -> None:
    with pytest.raises(InvalidRequest, match=told) as error:
        read(reader, saved(GREEN), file)

    assert error.value.message.startswith("messages[0].content[1]: ")


def test_a_header_that_claims_much_takes_no_memory(
    reader: ImageReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object) -> None:
        pytest.fail("it was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(InvalidRequest, match="max_pixels"):
        read(reader, png_that_says(30_000, 30_000))


def test_an_image_is_measured_and_not_decoded(
    reader: ImageReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be decoded is for the engine to say, which has to do it."""

    def load(*_: object) -> None:
        pytest.fail("it was decoded")

    files = [saved(GREEN), saved(GREEN, "WEBP"), NOISE[:1500], png_that_says(40, 40), turned()]
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    for file in files:
        assert read(reader, file)[1][0].num_tokens


def animated() -> bytes:
    frames = [Pillow.new("RGB", (20, 20), color) for color in ("red", "blue")]
    return saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)


def turned(kind: str = "JPEG") -> bytes:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    return saved(Pillow.linear_gradient("L").resize((60, 20)), kind, exif=exif, lossless=True)


@pytest.mark.parametrize(
    "make",
    [
        animated,
        turned,
        lambda: turned("PNG"),
        lambda: turned("WEBP"),
        lambda: saved(GREEN.convert("P")),
        lambda: saved(Pillow.new("RGBA", (20, 20), (250, 0, 0, 40))),
        lambda: saved(Pillow.new("LA", (20, 20), (250, 40))),
        lambda: saved(Pillow.new("I;16", (20, 20), 20_000)),
        lambda: saved(Pillow.new("1", (20, 20), 1)),
        lambda: saved(GREEN.convert("CMYK"), "JPEG"),
    ],
)
def test_odd_images_are_what_transformers_makes_of_them(make: Callable[[], bytes]) -> None:
    """Its load_image: the first picture, upright, without what is behind colours."""
    file = make()
    wanted = ImageOps.exif_transpose(Pillow.open(BytesIO(file))).convert("RGB")
    reader = ImageReader(LAYOUT, BOUNDS, 2)

    assert reader._decoder(file).tobytes() == wanted.tobytes()
    assert reader._decoder.measure(file) == wanted.size
    _, (image,) = read(reader, file)
    assert image.num_tokens == 2 * LAYOUT.grid(*wanted.size).num_tiles


def test_so_many_images_and_no_more(reader: ImageReader) -> None:
    chat = conversation(*[saved(GREEN)] * 3)

    reader.check(chat.images[:2], template())
    with pytest.raises(InvalidRequest, match="3 images; a conversation may have 2") as error:
        reader.check(chat.images, template())
    assert "limit_mm_per_prompt" in error.value.message
    assert not any(image.file for image in chat.images)


def test_a_template_without_a_place_for_images_takes_texts(reader: ImageReader) -> None:
    plain = template("{% for message in messages %}{{ message['content'] }}{% endfor %}")

    assert not plain.shows_images
    assert plain.render(ChatInput([{"role": "user", "content": "Hello"}])) == "Hello"
    with pytest.raises(InvalidRequest, match="no place for images"):
        reader.check(conversation(saved(GREEN)).images, plain)


def test_conversations_of_texts_are_shown_as_parts() -> None:
    messages = [{"role": "user", "content": "Is <image> a"}, {"role": "user", "content": " mark?"}]

    text = template().render(ChatInput(messages))

    assert text == "Is <image> a mark?"
    assert template().shows_images
    chat = ChatInput(messages, add_generation_prompt=False, continue_final_message=True)
    assert template().render(chat).endswith("mark?")


def test_bounds_are_the_models(reader: ImageReader) -> None:
    larger = ImageReader(LAYOUT, replace(BOUNDS, max_aspect_ratio=2000), 2)

    assert read(larger, png_that_says(2000, 2))[1][0].num_tokens


def test_an_unload_leaves_no_conversation_without_an_answer(reader: ImageReader) -> None:
    chats = [conversation(saved(GREEN)) for _ in range(8)]
    begun = threading.Event()
    blocked = [reader.threads.submit(begun.wait) for _ in range(NUM_THREADS)]
    waiting = [
        reader.threads.submit(reader.render, chat, chat.images, template()) for chat in chats
    ]

    reader.close()
    begun.set()

    assert all(each.result(patience()) for each in blocked)
    assert all(each.result(patience()).endswith("?") for each in waiting)
    with pytest.raises(ModelNotReady, match="is being unloaded"):
        reader.check(chats[0].images, template())

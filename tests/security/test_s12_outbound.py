"""S12: the server connects to nobody because a request says so. Of addresses it takes those alone
that hold the image themselves: parts of a message that would have to be fetched or sent are refused
by name."""

import base64
from typing import Any

import aiohttp
import pytest
from audit import watched
from heard import hear
from row_marks import shows
from scripted_model import ScriptedModel, served

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(64)).decode()
URLS = [
    "http://169.254.169.254/latest/meta-data/", "http://127.0.0.1:1/", "http://[::1]:1/",
    "http://0x7f.1:1/", "http://2130706433:1/", "http://localhost:1/", "http://a\\@127.0.0.1:1/",
    "http://evil.example#@127.0.0.1:1/", "https://rebinding.example/x.png", "file:///etc/passwd",
    "ftp://127.0.0.1:1/x", "gopher://127.0.0.1:1/", "//127.0.0.1:1/x", "/etc/passwd", "",
    "data:,x", "data:image/png,x", "data:image/svg+xml,<svg/>", "data:text/plain;base64,QUJD",
    "data:image/svg+xml;base64,PHN2Zy8+", " data:image/png;base64,QUJD",
    "data:image/gif;base64," + "R0lGODlh" * 100_000,
]  # fmt: skip
DATA = [
    "data:image/png;base64,!!!",
    f"data:image/png;base64,{PNG}",
    "data:image/jpeg;base64,/9j/",
]
MEDIA = [
    {"type": "input_audio", "input_audio": {"data": "AAAA" * 1000, "format": "wav"}},
    {"type": "audio_url", "audio_url": {"url": "http://127.0.0.1:1/a.opus"}},
    {"type": "video_url", "video_url": {"url": "http://127.0.0.1:1/a.mp4"}},
    {"type": "file", "file": {"file_id": "../../etc/passwd"}},
    {"type": "image_embeds", "image_embeds": "AAAA"},
]


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


async def ask(path: str, body: Any) -> tuple[int, Any]:
    """Status and document; whatever the server does, it connects to nobody and opens no file of the
    machine's."""
    model = ScriptedModel()
    async with (
        served({"m": model}) as url,
        aiohttp.ClientSession() as session,
    ):
        async with session.get(f"{url}/v2/health/live"):
            pass  # From here on the client's connection is open.
        with watched() as seen:
            async with session.post(url + path, json=body) as answer:
                found = answer.status, await answer.json()
                hear(answer.status, text=await answer.read(), headers=answer.headers)
    assert seen.connected == []
    assert seen.looked_up == []
    assert [path for path in seen.opened if path.startswith("/etc")] == []
    assert model.requests == []
    return found


@pytest.mark.parametrize(
    ("part", "field", "told"),
    [
        *(shows("O25", image(url), ".image_url.url", "nothing is fetched") for url in URLS),
        *(shows("O26a", image(data), "", "reads no images") for data in DATA),
        *(shows("O27a", part, ".type", "only text and image_url parts are") for part in MEDIA),
    ],
    ids=lambda part: str(part)[:70],
)
async def test_parts_that_would_be_fetched_or_decoded_are_refused(
    part: dict[str, Any], field: str, told: str
) -> None:
    text = {"type": "text", "text": "What is this?"}
    messages = [{"role": "user", "content": [text, part]}]
    for path in ("/v1/chat/completions", "/tokenize"):
        status, document = await ask(path, {"model": "m", "messages": messages})
        error = document["error"]
        assert (status, error["param"]) == (400, f"messages[0].content[1]{field}")
        assert told in error["message"]


@pytest.mark.parametrize("role", ["system", "assistant", "developer"])
async def test_only_the_user_sends_images(role: str) -> None:
    messages = [{"role": role, "content": [image(f"data:image/png;base64,{PNG}")]}]
    status, document = await ask("/v1/chat/completions", {"model": "m", "messages": messages})
    assert (status, document["error"]["param"]) == (400, "messages[0].content[0].type")
    assert "the user's messages" in document["error"]["message"]


@pytest.mark.more_of("O25")
@pytest.mark.parametrize("url", URLS[:4])
async def test_images_of_anthropics_messages_are_not_fetched_either(url: str) -> None:
    block = {"type": "image", "source": {"type": "url", "url": url}}
    body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": [block]}]}
    status, document = await ask("/v1/messages", body)
    assert status == 400
    assert document["error"]["message"].startswith("messages[0].content[0]")


@pytest.mark.rows("O27b")
@pytest.mark.parametrize(
    "path", ["/v1/audio/transcriptions", "/v1/audio/speech", "/v1/images/generations", "/v1/files"]
)
async def test_routes_of_media_are_not_there(path: str) -> None:
    status, _ = await ask(path, {"model": "m", "url": URLS[0]})
    assert status == 404


@pytest.mark.parametrize("reference", ["http://127.0.0.1:1/s.json", "file:///etc/passwd"])
async def test_schemas_elsewhere_are_not_fetched(reference: str) -> None:
    """The library that compiles schemas fetches nothing; see also rows O17."""
    from llguidance import LLMatcher

    with watched() as seen:
        grammar = LLMatcher.grammar_from_json_schema({"$ref": reference})
        told = LLMatcher.validate_grammar(grammar)
    assert "$ref" in told or "fetch" in told.lower() or "resolve" in told.lower(), told
    assert (seen.connected, seen.looked_up) == ([], [])

"""Bodies of the language APIs: JSON, and said to be."""

from http import HTTPStatus

from aiohttp import web

from trivet.server.http.body import read_body
from trivet.server.http.errors import HttpError
from trivet.server.http.json_document import require_size
from trivet.server.http.limits import HttpLimits
from trivet.server.http.operations import NUMBERS

_TAKEN = {"application/json", "application/x-www-form-urlencoded"}
"""The second is what curl says of every body when it is not told better."""


async def read_json_body(request: web.BaseRequest, limits: HttpLimits) -> bytes:
    """The body. Raises InvalidRequest for one of too many values, and HttpError (415) where it is
    said to be something else: a text that a foreign page makes a browser send, for one, needs
    nobody's leave."""
    _require_json(media_type(request))
    body = bytes(await read_body(request, limits))
    require_size(body, limits.json)
    return body


async def read_json_or_file(request: web.BaseRequest, limits: HttpLimits) -> tuple[bytes, bool]:
    """The body, and whether it is a file: it is said to be one, or nothing is said, as some clients
    send files, and it is no JSON object. Raises as read_json_body does."""
    kind = media_type(request)
    is_file = kind == NUMBERS or kind.startswith("image/")
    if not is_file:
        _require_json(kind)
    body = bytes(await read_body(request, limits))
    if is_file or (not kind and body and body.lstrip()[:1] != b"{"):
        return body, True
    require_size(body, limits.json)
    return body, False


def media_type(request: web.BaseRequest) -> str:
    """What the body is said to be; empty where nothing is said."""
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _require_json(kind: str) -> None:
    if kind and kind not in _TAKEN and not kind.endswith("+json"):
        raise HttpError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type {kind[:64]!r} is not supported; send application/json",
        )

"""Bodies of the language APIs: JSON, and said to be."""

from http import HTTPStatus

from aiohttp import web

from trivet.server.http.body import read_body
from trivet.server.http.errors import HttpError
from trivet.server.http.json_document import require_size
from trivet.server.http.limits import HttpLimits

_TAKEN = {"application/json", "application/x-www-form-urlencoded"}
"""The second is what curl says of every body when it is not told better."""


async def read_json_body(request: web.BaseRequest, limits: HttpLimits) -> bytes:
    """The body. Raises InvalidRequest for one of too many values, and HttpError (415) where it is
    said to be something else: a text that a foreign page makes a browser send, for one, needs
    nobody's leave."""
    kind = request.headers.get("Content-Type", "application/json").partition(";")[0].strip().lower()
    if kind not in _TAKEN and not kind.endswith("+json"):
        raise HttpError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type {kind[:64]!r} is not supported; send application/json",
        )
    body = bytes(await read_body(request, limits))
    require_size(body, limits.json)
    return body

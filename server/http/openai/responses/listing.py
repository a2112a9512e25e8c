"""The input items of a response, a page at a time."""

from collections.abc import Sequence
from typing import Any

from trivet.backends.api import InvalidRequest

MOST = 100
_USUAL = 20


def page_of(
    items: Sequence[dict[str, Any]], limit: str | None, order: str | None, after: str | None
) -> dict[str, Any]:
    """The page that a query asks for; the last item comes first unless it says otherwise. Raises
    InvalidRequest."""
    if order not in (None, "asc", "desc"):
        raise InvalidRequest("order: it must be asc or desc")
    found = list(items) if order == "asc" else list(reversed(items))
    if after is not None:
        places = [place for place, item in enumerate(found) if item["id"] == after]
        if not places:
            raise InvalidRequest("after: no item of this response has that id")
        found = found[places[0] + 1 :]
    size = _USUAL if limit is None else number_in("limit", limit, 1, MOST)
    page = found[:size]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else "",
        "last_id": page[-1]["id"] if page else "",
        "has_more": len(found) > size,
    }


def number_in(name: str, text: str, least: int, most: int) -> int:
    """The number that a query gives. Raises InvalidRequest."""
    is_number = text.isascii() and text.isdecimal() and len(text) < 10
    if not is_number or not least <= int(text) <= most:
        raise InvalidRequest(f"{name}: it must be a number from {least} to {most}")
    return int(text)

"""What few servers need is imported when it is first asked; the event loop goes on meanwhile."""

import asyncio
import subprocess
import sys
import threading

from http_site import FakeCore, open_site
from patience import patience

from trivet.server.http.later import Later

STARTED = """
import sys, trivet.server.app
print([name for name in ("pydantic", "trivet.server.http.language_rooms") if name in sys.modules])
"""


def test_the_server_starts_without_the_fields_of_the_language_apis() -> None:
    done = subprocess.run([sys.executable, "-c", STARTED], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


async def test_what_takes_long_to_import_does_not_hold_up_the_loop() -> None:
    may_end = threading.Event()

    def make() -> list[str]:
        assert may_end.wait(patience())
        return ["made"]

    later = Later(make)
    both = asyncio.gather(later.get(), later.get())
    await asyncio.sleep(0)
    may_end.set()  # Nobody would, were the loop held up.
    first, second = await both
    assert first is second is await later.get()


async def test_language_routes_answer_before_and_after_their_room_is_made() -> None:
    site = await open_site(FakeCore())
    try:
        for _ in range(2):
            async with site.session.post("/v1/completions", data=b"{}") as answer:
                assert answer.status == 415
            async with site.session.post("/v1/completions", json={}) as answer:
                assert answer.status == 400
                assert (await answer.json())["error"]["param"] == "model"
    finally:
        await site.close()

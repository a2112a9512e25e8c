"""What is imported when it is first asked, not when the server starts."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from aiohttp import web

from trivet.server.http.routes import Call, Handler

R = TypeVar("R")


class Later(Generic[R]):
    """Handlers whose making imports much. Owned by the event loop, which goes on meanwhile."""

    def __init__(self, make: Callable[[], R]) -> None:
        """`make` is called in a thread."""
        self._make = make
        self._made: R | None = None

    def handler(self, choose: Callable[[R], Handler]) -> Handler:
        """One of the handlers."""

        async def handle(call: Call) -> web.StreamResponse:
            made = self._made if self._made is not None else await self.get()
            return await choose(made)(call)

        return handle

    @property
    def made(self) -> R | None:
        """All of them, if one was asked for."""
        return self._made

    async def get(self) -> R:
        """All of them, made by now."""
        if self._made is None:
            made = await asyncio.to_thread(self._make)
            # Somebody else may have waited for the same.
            self._made = made if self._made is None else self._made
        return self._made

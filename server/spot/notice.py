"""The notice by which a cloud says that it takes a machine back, asked of its own metadata.

Amazon gives two minutes, Google and Azure thirty seconds. Addresses and answers are those of each
cloud's instance metadata: Amazon's `spot/instance-action` (with a token, version 2 of its service),
Google's `instance/preempted`, Azure's scheduled events of the type `Preempt`, which all machines of
a set are told, with the names of those that they are about.
"""

import asyncio
import json
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout

from trivet.server.logs.outage import Outage

log = logging.getLogger(__name__)
PERIOD_S = 2.0
"""Time between two questions."""
_TIMEOUT = ClientTimeout(total=2.0)
_TOKEN_TTL_S = 21600


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked of one cloud, and which answer is the notice."""

    address: str
    path: str
    headers: Mapping[str, str]
    is_notice: Callable[[str, str], bool]
    """Of the answer and the machine's name."""
    has_token: bool = False
    name_path: str = ""
    """Where the machine's name is, for a notice that names machines."""


def _preempts(text: str, name: str) -> bool:
    told: Any = json.loads(text)
    events = told.get("Events", ()) if isinstance(told, dict) else ()
    return any(
        isinstance(each, dict)
        and each.get("EventType") == "Preempt"
        and name in each.get("Resources", ())
        for each in events
    )


_QUESTIONS = {
    "aws": _Question(
        "http://169.254.169.254",
        "/latest/meta-data/spot/instance-action",
        {},
        lambda text, _: json.loads(text).get("action") in ("terminate", "stop", "hibernate"),
        has_token=True,
    ),
    "gcp": _Question(
        "http://169.254.169.254",
        "/computeMetadata/v1/instance/preempted",
        {"Metadata-Flavor": "Google"},
        lambda text, _: text.strip() == "TRUE",
    ),
    "azure": _Question(
        "http://169.254.169.254",
        "/metadata/scheduledevents?api-version=2020-07-01",
        {"Metadata": "true"},
        _preempts,
        name_path="/metadata/instance/compute/name?api-version=2021-02-01&format=text",
    ),
}
CLOUDS = tuple(_QUESTIONS)


def drain() -> None:
    """Ends this server as SIGTERM does: what is under way is answered."""
    os.kill(os.getpid(), signal.SIGTERM)


class SpotNotice:
    """Asks one cloud again and again, until the notice comes or it is closed. Owned by the loop."""

    def __init__(
        self,
        cloud: str,
        on_notice: Callable[[], object] = drain,
        *,
        address: str = "",
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`cloud`: one of CLOUDS, or "off". `address` stands in for the cloud's own."""
        self._cloud = cloud
        self._on_notice = on_notice
        self._address = address
        self._sleep = sleep
        self._outage = Outage()
        self._name = ""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to ask, where there is a cloud."""
        question = _QUESTIONS.get(self._cloud)
        if question is not None:
            self._task = asyncio.ensure_future(self._ask(question))

    def close(self) -> None:
        """Asks no more."""
        if self._task is not None:
            self._task.cancel()

    async def _ask(self, question: _Question) -> None:
        async with ClientSession(self._address or question.address, timeout=_TIMEOUT) as session:
            while not await self._has_come(session, question):
                await self._sleep(PERIOD_S)
        log.warning("%s takes this machine back: the server drains", self._cloud)
        self._on_notice()

    async def _has_come(self, session: ClientSession, question: _Question) -> bool:
        try:
            if question.name_path and not self._name:
                self._name = (await _answer(session, question, question.name_path)).strip()
            told = await _answer(session, question, question.path)
            has_come = question.is_notice(told, self._name)
        except (ClientError, OSError, ValueError, AttributeError, TypeError) as error:
            if self._outage.goes_on():
                log.warning(
                    "--spot-notice=%s: the cloud's metadata cannot be read, so no notice would be "
                    "heard: %s",
                    self._cloud,
                    str(error) or type(error).__name__,
                )
            return False
        if self._outage.ends():
            log.info("--spot-notice=%s: the cloud's metadata can be read again", self._cloud)
        return has_come


async def _answer(session: ClientSession, question: _Question, path: str) -> str:
    """The text that is there; "{}" while Amazon has none to give, which it says by 404."""
    headers = dict(question.headers)
    if question.has_token:
        ttl = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_TTL_S)}
        async with session.put("/latest/api/token", headers=ttl) as given:
            given.raise_for_status()
            headers["X-aws-ec2-metadata-token"] = await given.text()
    async with session.get(path, headers=headers) as answered:
        if answered.status == HTTPStatus.NOT_FOUND and question.has_token:
            return "{}"
        answered.raise_for_status()
        return await answered.text()

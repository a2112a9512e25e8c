"""A machine that is taken back: each cloud's notice, its silence and its failures."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from patience import patience

from trivet.server.settings import Settings, rows
from trivet.server.spot.notice import CLOUDS, SpotNotice

NONE = {"aws": (404, ""), "gcp": (200, "FALSE"), "azure": (200, '{"Events": []}')}
NOTICE = {
    "aws": (200, json.dumps({"action": "terminate", "time": "2026-11-30T08:22:00Z"})),
    "gcp": (200, "TRUE\n"),
    "azure": (
        200,
        json.dumps(
            {
                "Events": [
                    {"EventType": "Reboot", "Resources": ["mine_1"]},
                    {"EventType": "Preempt", "Resources": ["mine_0", "mine_1"]},
                ]
            }
        ),
    ),
}
ASKED = {
    "aws": ("/latest/meta-data/spot/instance-action", "X-aws-ec2-metadata-token", "token"),
    "gcp": ("/computeMetadata/v1/instance/preempted", "Metadata-Flavor", "Google"),
    "azure": ("/metadata/scheduledevents", "Metadata", "true"),
}


@asynccontextmanager
async def metadata(cloud: str, answers: list[tuple[int, str]]) -> AsyncIterator[str]:
    """The address of a cloud's metadata that answers these in turn, and the last for ever."""
    path, header, value = ASKED[cloud]

    async def answer(request: web.Request) -> web.Response:
        assert request.headers[header] == value
        status, text = answers.pop(0) if len(answers) > 1 else answers[0]
        return web.Response(status=status, text=text)

    async def token(_: web.Request) -> web.Response:
        return web.Response(text="token")

    app = web.Application()
    app.router.add_get(path, answer)

    async def name(_: web.Request) -> web.Response:
        return web.Response(text="mine_1")

    app.router.add_put("/latest/api/token", token)
    app.router.add_get("/metadata/instance/compute/name", name)
    async with TestServer(app) as server:
        yield str(server.make_url(""))


async def soon(_: float) -> None:
    await asyncio.sleep(0)


async def heard(cloud: str, answers: list[tuple[int, str]], at: str = "") -> None:
    """Returns when the notice was heard."""
    come = asyncio.Event()
    async with metadata(cloud, answers) as address:
        notice = SpotNotice(cloud, come.set, address=at or address, sleep=soon)
        notice.start()
        await asyncio.wait_for(come.wait(), patience(5))
        notice.close()


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_notice_is_heard_after_silence(cloud: str) -> None:
    asyncio.run(heard(cloud, [NONE[cloud], NONE[cloud], NOTICE[cloud]]))


def test_a_notice_to_another_machine_of_the_set_is_none_to_this_one() -> None:
    other = json.dumps({"Events": [{"EventType": "Preempt", "Resources": ["mine_0"]}]})

    async def asked() -> int:
        count = 0

        async def counted(_: float) -> None:
            nonlocal count
            count += 1
            await asyncio.sleep(0)

        async with metadata("azure", [(200, other)]) as address:
            notice = SpotNotice("azure", pytest.fail, address=address, sleep=counted)
            notice.start()
            while count < 3:
                await asyncio.sleep(0)
            notice.close()
        return count

    assert asyncio.run(asked()) >= 3


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("failure", [(500, "down"), (403, ""), (200, "[]"), (200, "<html>")])
def test_failures_are_told_once_and_asked_over(
    cloud: str, failure: tuple[int, str], caplog: pytest.LogCaptureFixture
) -> None:
    asyncio.run(heard(cloud, [failure, failure, NOTICE[cloud]]))
    told = [each for each in caplog.messages if "cannot be read" in each]
    expected = 0 if cloud == "gcp" and failure[0] == 200 else 1
    assert len(told) == (0 if cloud == "azure" and failure == (200, "[]") else expected)


def test_an_address_that_nobody_has_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def asked() -> None:
        asked_twice = asyncio.Event()
        count = 0

        async def counted(_: float) -> None:
            nonlocal count
            count += 1
            if count == 2:
                asked_twice.set()
            await asyncio.sleep(0)

        notice = SpotNotice("gcp", pytest.fail, address="http://127.0.0.1:1", sleep=counted)
        notice.start()
        await asyncio.wait_for(asked_twice.wait(), patience(5))
        notice.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(asked())
    assert sum("no notice would be heard" in each for each in caplog.messages) == 1


def test_without_a_cloud_nothing_is_asked() -> None:
    async def started() -> int:
        notice = SpotNotice(Settings().spot_notice, pytest.fail)
        before = len(asyncio.all_tasks())
        notice.start()
        notice.close()
        return len(asyncio.all_tasks()) - before

    assert asyncio.run(started()) == 0


def test_the_option_knows_these_clouds() -> None:
    (row,) = (each for each in rows() if each.name == "spot_notice")
    assert row.option.choices == ("off", *CLOUDS)

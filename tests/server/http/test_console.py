"""The console: who may load it, what it lets a browser do, and that the package has all of it."""

import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from auth_site import GuardedSite, Keys
from http_site import FakeCore, Site, console_room, open_site

from trivet.server.auth.keyring import Keyring
from trivet.server.console.assets import FOLDER, TYPES, read_assets
from trivet.server.console.room import ConsoleRoom, is_on
from trivet.server.settings import Settings
from trivet.server.tracing.record import Span, Trace

PAGES = ("/", "/docs")
DATA = ("/v2/console/charts", "/v2/console/traces", "/v2/console/log")
OWN = [path for path in FOLDER.rglob("*") if path.is_file() and "vendor" not in path.parts]
VENDORED = [path for path in (FOLDER / "vendor").iterdir() if path.suffix != ".txt"]
ADDRESS = re.compile(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s\"'`)]*", re.IGNORECASE)
NAMESPACES = re.compile(r"http://www\.w3\.org/(2000/svg|1999/xhtml|1998/Math/MathML|1999/xlink)")
LOADS = re.compile(
    r"(?:src|href|action)=[\"']?(?:https?:)?//|url\([\"']?(?:https?:)?//|@import|importScripts"
    r"|new WebSocket|EventSource|sendBeacon|XMLHttpRequest"
)


@pytest.fixture
def room() -> ConsoleRoom:
    return console_room()


@pytest.fixture
async def site(room: ConsoleRoom) -> AsyncIterator[Site]:
    opened = await open_site(FakeCore(), console=room)
    yield opened
    await opened.close()


def links(page: str) -> list[str]:
    return re.findall(r'(?:src|href)="([^"]+)"', page)


async def test_pages_and_all_that_they_load_are_there_for_everybody(site: Site) -> None:
    plain = {"Accept-Encoding": "identity"}
    for path in PAGES:
        async with site.session.get(path, headers=plain) as answer:
            page = await answer.text()
            assert answer.status == 200
            assert answer.content_type == "text/html"
            assert answer.headers["Cache-Control"] == "no-store"
        for link in links(page):
            async with site.session.get(link, headers=plain) as answer:
                assert answer.status == 200, link
                assert "immutable" in answer.headers["Cache-Control"]
                assert await answer.read()


async def test_every_import_of_a_script_is_there() -> None:
    names = {name.partition("/")[2] for name in read_assets().files}
    for path in OWN:
        if path.suffix == ".js":
            for wanted in re.findall(r'from "\./([^"]+)"', path.read_text()):
                assert wanted in names, (path.name, wanted)


async def test_the_policy_lets_nothing_in_from_elsewhere(site: Site) -> None:
    for path in (*PAGES, *links(read_assets().pages["index"].content.decode())):
        async with site.session.get(path) as answer:
            rules = dict(
                rule.strip().partition(" ")[::2]
                for rule in answer.headers["Content-Security-Policy"].split(";")
            )
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["X-Frame-Options"] == "DENY"
        assert rules["default-src"] == "'none'"
        assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
        assert rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
        assert rules["require-trusted-types-for"] == "'script'"
        assert not {"'unsafe-inline'", "'unsafe-eval'", "*"} & set(" ".join(rules.values()).split())


def test_no_file_names_an_outside_address_to_load() -> None:
    for path in OWN:
        text = NAMESPACES.sub("", path.read_text())
        assert ADDRESS.findall(text) == [], path.name
    for path in VENDORED:
        # Their authors' addresses stand in comments; none is one to load.
        text = path.read_text()
        assert LOADS.findall(text) == [], path.name
        assert "sourceMappingURL" not in text


def test_pages_hold_no_script_and_no_style_of_their_own() -> None:
    for page in read_assets().pages.values():
        text = page.content.decode()
        assert re.findall(r"<script(?![^>]*\bsrc=)", text) == []
        assert re.findall(r"<style|\bstyle=|\bon[a-z]+=|javascript:", text) == []


def test_what_is_vendored_lies_beside_its_licences() -> None:
    licences = (FOLDER / "vendor" / "LICENSES.txt").read_text()
    for path in VENDORED:
        assert path.stem in licences, path.name
    for words in ("Apache License", "Permission is hereby granted", "Preact", "uPlot", "marked"):
        assert words in licences


def test_every_file_is_of_a_known_type() -> None:
    assert {path.suffix for path in FOLDER.rglob("*") if path.is_file()} <= TYPES.keys()


async def test_files_are_packed_for_those_who_unpack(site: Site) -> None:
    _, *links_ = links(read_assets().pages["index"].content.decode())
    async with site.session.get(links_[0], headers={"Accept-Encoding": "gzip"}) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.headers["Vary"] == "Accept-Encoding"
    async with site.session.get(links_[0], headers={"Accept-Encoding": "identity"}) as answer:
        assert "Content-Encoding" not in answer.headers


@pytest.mark.parametrize("path", [*PAGES, *DATA])
async def test_a_name_that_is_not_ours_gets_nothing(site: Site, path: str) -> None:
    async with site.session.get(path, headers={"Host": "evil.example"}) as answer:
        assert answer.status == 403
        assert "--http-allowed-hosts" in await answer.text()


@pytest.mark.parametrize("path", DATA)
async def test_pages_of_other_sites_read_nothing(site: Site, path: str) -> None:
    async with site.session.get(path, headers={"Origin": "https://evil.example"}) as answer:
        assert answer.status == 403


async def test_a_name_that_the_server_is_given_is_ours() -> None:
    async with GuardedSite(hosts=("models.example",)) as site:
        for path in (*PAGES, *DATA):
            async with site.session.get(path, headers={"Host": "models.example"}) as answer:
                assert answer.status == 200, path


async def test_unknown_files_are_not_found(site: Site) -> None:
    for path in ("/console/x", "/console/..%2f..%2froom.py", "/console/"):
        async with site.session.get(path) as answer:
            assert answer.status == 404


async def test_without_a_console_there_is_none() -> None:
    opened = await open_site(FakeCore())
    for path, status in (("/", 405), ("/docs", 404), ("/v2/console/log", 404)):
        async with opened.session.get(path) as answer:
            assert answer.status == status
    await opened.close()


def test_it_is_on_where_only_this_machine_can_connect_or_where_it_is_asked_for() -> None:
    assert is_on(Settings())
    assert not is_on(Settings(http_address="0.0.0.0"))
    assert is_on(Settings(http_address="0.0.0.0", console="true"))
    assert not is_on(Settings(console="false"))


def trace(model: str) -> Trace:
    span = Span(model or "InferRequest", 1, 0, 1_000, 3_000, model, 1, "id")
    return Trace(7, [span], 0)


async def test_a_key_sees_the_traces_of_its_models_and_no_log_but_where_it_may_use_all(
    tmp_path: Path,
) -> None:
    keys = Keys(tmp_path / "keys.toml")
    keys.add("all", "admin")
    keys.add("some", "admin", more='models = ["mine"]')
    async with GuardedSite(Keyring(keys.path)) as site:
        for model in ("mine", "yours", ""):
            site.room.traces.take(trace(model))

        async def asked(path: str, name: str) -> tuple[int, str]:
            async with site.session.get(path, headers=keys.header(name)) as answer:
                return answer.status, await answer.text()

        assert (await asked("/v2/console/traces", "all"))[1].count('"trace_id"') == 3
        _, told = await asked("/v2/console/traces", "some")
        assert told.count('"trace_id"') == 1
        assert "yours" not in told
        assert (await asked("/v2/console/log", "all"))[0] == 200
        assert (await asked("/v2/console/log", "some"))[0] == 403


async def test_the_log_tells_what_came_since(site: Site, room: ConsoleRoom) -> None:
    def log(text: str) -> None:
        room.lines.handle(logging.makeLogRecord({"msg": text, "levelno": 20, "levelname": "INFO"}))

    log("one")
    async with site.session.get("/v2/console/log") as answer:
        (line,) = (await answer.json())["lines"]
    assert (line["text"], line["level"]) == ("one", "info")
    log("two")
    async with site.session.get(f"/v2/console/log?since={line['number']}") as answer:
        assert [each["text"] for each in (await answer.json())["lines"]] == ["two"]


@pytest.mark.parametrize("since", ["x", "-1", "1.5", "9" * 40])
async def test_since_is_a_number(site: Site, since: str) -> None:
    async with site.session.get("/v2/console/charts", params={"since": since}) as answer:
        assert answer.status == 400
        assert "'since'" in await answer.text()

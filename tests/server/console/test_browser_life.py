"""The console over time: keys come and go, servers die and return, and models are many."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from auth_site import Keys
from console_site import Look, open_browser, write_models
from playwright.sync_api import Browser, expect
from serving import start_server, write_identity

pytestmark = pytest.mark.slow
MANY = 1000
READS = {
    "models": "any", "try/first": "any", "charts": "metrics", "rollouts": "admin",
    "traces": "admin", "graph/whole": "any", "logs": "admin",
}  # fmt: skip
"""What of a page's data needs which scope."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


def test_a_key_is_asked_for_and_then_used(browser: Browser, tmp_path: Path) -> None:
    repository = tmp_path / "models"
    write_models(repository, generates=False)
    keys = Keys(tmp_path / "keys.toml")
    keys.add("chief", "infer", "admin", "metrics")
    keys.add("guest", "infer")
    server = start_server(
        repository, f"--auth-keys-file={keys.path}", "--exit-on-error=false",
        "--strict-readiness=false",
    )  # fmt: skip
    try:
        look = Look.at(browser, server.http)
        page = look.go()
        banner = page.get_by_role("alert")
        expect(banner).to_contain_text("asks for a key")
        assert page.get_by_role("row").filter(has_text="first").count() == 0
        look.picture("without-key")
        banner.get_by_label("Key").fill("wrong")
        banner.get_by_role("button", name="Use it").click()
        expect(banner).to_contain_text("asks for a key")
        banner.get_by_label("Key").fill(keys.secrets["chief"])
        banner.get_by_role("button", name="Use it").click()
        expect(page.get_by_role("link", name="first")).to_be_visible()
        for place in READS:
            look.go(place)
            page.wait_for_load_state("networkidle")
            expect(page.get_by_role("alert")).to_have_count(0)
        page = look.go("models/first")
        page.get_by_role("button", name="Unload", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("explicit")
        page.get_by_text("Key in use").click()
        page.get_by_label("Key").fill(keys.secrets["guest"])
        page.get_by_role("button", name="Use it").click()
        for place, scope in READS.items():
            look.go(place)
            page.wait_for_load_state("networkidle")
            if scope == "any":
                expect(page.get_by_role("alert")).to_have_count(0)
            else:
                expect(page.get_by_role("alert").first).to_contain_text("guest")
        # Another tab has no key.
        other = Look.at(browser, server.http)
        expect(other.go().get_by_role("alert")).to_contain_text("asks for a key")
        other.close()
        look.close()
    finally:
        server.end()


def test_a_page_goes_on_when_the_server_is_back(browser: Browser, tmp_path: Path) -> None:
    write_identity(tmp_path / "models", "first")
    server = start_server(tmp_path / "models")
    look = Look.at(browser, server.http)
    try:
        page = look.go()
        expect(page.get_by_role("link", name="first")).to_be_visible()
        server.end()
        expect(page.get_by_role("alert")).to_contain_text("does not answer")
        look.picture("server-gone")
        expect(page.get_by_role("link", name="first")).to_be_visible()
        write_identity(tmp_path / "models", "second")
        server = start_server(tmp_path / "models", f"--http-port={server.http_port}")
        expect(page.get_by_role("alert")).to_have_count(0)
        expect(page.get_by_role("link", name="second")).to_be_visible()
        look.close()
    finally:
        server.end()


def test_a_thousand_models_stay_fluent(browser: Browser, tmp_path: Path) -> None:
    for number in range(MANY):
        write_identity(tmp_path / "models", f"model-{number:04}")
    server = start_server(tmp_path / "models", "--model-control-mode=explicit")
    look = Look.at(browser, server.http)
    try:
        page = look.go()
        expect(page.get_by_text(f"{MANY} not loaded")).to_be_visible()
        region = page.get_by_role("region", name="Models")
        expect(region.get_by_role("table")).to_have_attribute("aria-rowcount", str(MANY + 1))
        assert region.get_by_role("row").count() < 100
        region.evaluate("each => each.scrollTo(0, each.scrollHeight)")
        expect(page.get_by_role("link", name=f"model-{MANY - 1:04}")).to_be_visible()
        look.picture("thousand")
        page.get_by_label("Search").fill("model-0777")
        expect(region.get_by_role("link")).to_have_count(1)
        page.get_by_role("button", name="load model-0777").click()
        expect(region.get_by_text("READY")).to_be_visible()
        look.close()
    finally:
        server.end()

"""A real browser that looks at the console of a real server."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from llm_site import SMALL_LLM, write_small_llm
from patience import patience
from playwright.sync_api import Browser, Page, expect, sync_playwright
from serving import write_adder, write_identity
from trace_site import ENSEMBLE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
)
PICTURES = Path(os.environ.get("CONSOLE_PICTURES", "/tmp/trivet-console-pictures"))
"""Where screenshots stay after the tests."""
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 800}
TEXTS = """
backend: "identity"
input [{ name: "INPUT0" data_type: TYPE_STRING dims: [ -1 ] }]
output [{ name: "OUTPUT0" data_type: TYPE_STRING dims: [ -1 ] }]
"""
PICTURE = """
backend: "identity"
input [{ name: "INPUT0" data_type: TYPE_FP32 dims: [ 3, 32, 32 ] }]
output [{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 3, 32, 32 ] }]
"""
BROKEN = """
backend: "onnxruntime"
max_batch_size: 8
"""


def write_models(repository: Path, *, generates: bool = True) -> None:
    """One model for each thing that pages show."""
    for name in ("first", "second"):
        write_identity(repository, name)
    for name, config in (("texts", TEXTS), ("picture", PICTURE), ("whole", ENSEMBLE)):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(config)
    (repository / "broken" / "1").mkdir(parents=True)
    (repository / "broken" / "config.pbtxt").write_text(BROKEN)
    (repository / "broken" / "1" / "model.onnx").write_bytes(b"no model")
    write_adder(repository, "adder", 1)
    if generates:
        write_small_llm(repository, "small", SMALL_LLM)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Chromium as the distribution has it; skips the test where there is none."""
    if CHROMIUM is None:
        pytest.skip("no chromium here")
    expect.set_options(timeout=patience(20) * 1e3)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=list(FLAGS), timeout=patience() * 1e3
        )
        yield browser
        browser.close()


@dataclass
class Look:
    """A page of the console, and all that went wrong in it or left the server."""

    page: Page
    base: str
    faults: list[str] = field(default_factory=list)

    @classmethod
    def at(
        cls, browser: Browser, server: str, size: dict[str, int] = DESK, scheme: str = "light"
    ) -> "Look":
        """`server`: host and port."""
        options: dict[str, Any] = {"viewport": size, "color_scheme": scheme}
        page = browser.new_context(**options).new_page()
        page.set_default_timeout(patience(20) * 1e3)
        look = cls(page, f"http://{server}")
        page.on("pageerror", lambda error: look.faults.append(f"error: {error}"))
        page.on("console", look._said)
        page.on("request", look._asked)
        return look

    def _said(self, message: Any) -> None:
        # Chromium tells of each refused answer by itself; what a page says of it, tests read there.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.faults.append(f"console: {message.text}")

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.base, "data:", "blob:")):
            self.faults.append(f"outside: {request.url}")

    def go(self, place: str = "models") -> Page:
        """Opens a page of the console by what stands behind #/."""
        self.page.goto(f"{self.base}/#/{place}")
        self.page.locator("h1").wait_for()
        return self.page

    def picture(self, name: str) -> None:
        """Keeps what is seen as an artefact."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=PICTURES / f"{name}.png")

    def close(self) -> None:
        """Closes the page, of which nothing may have gone wrong."""
        self.page.context.close()
        assert self.faults == []

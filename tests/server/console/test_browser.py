"""The console in a real browser: each page and what can be done there, without keys."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from console_site import DESK, PHONE, Look, open_browser, write_models
from PIL import Image
from playwright.sync_api import Browser, expect
from serving import RunningServer, start_server, write_adder

pytestmark = pytest.mark.slow
PLACES = (
    "models", "models/adder", "models/broken", "try/first", "try/texts", "chat", "charts",
    "rollouts", "traces", "graph/whole", "logs",
)  # fmt: skip
ONES = {"inputs": [{"name": "IN", "datatype": "FP32", "shape": [1, 16], "data": [1.0] * 16}]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    repository = tmp_path_factory.mktemp("console")
    write_models(repository)
    write_adder(repository, "adder", 2)
    policy = tmp_path_factory.mktemp("policy") / "rollout.toml"
    policy.write_text("steps = [50, 100]\nbake_s = 3600\nmin_samples = 100000\nmax_step_s = 7200\n")
    flags = ("--exit-on-error=false", "--strict-readiness=false", f"--rollout-policy={policy}")
    running = start_server(repository, "--model-control-mode=explicit", "--load-model=*", *flags)
    yield running
    running.end()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture
def look(browser: Browser, server: RunningServer) -> Iterator[Look]:
    opened = Look.at(browser, server.http)
    yield opened
    opened.close()


def test_models_are_listed_with_their_states_and_why_not(look: Look) -> None:
    page = look.go()
    row = page.get_by_role("row").filter(has_text="broken")
    expect(row).to_contain_text("UNAVAILABLE")
    expect(row).to_contain_text("is not an ONNX model")
    look.picture("models")
    page.get_by_label("Search").fill("whole")
    expect(row).to_have_count(0)
    expect(page.get_by_role("link", name="whole")).to_be_visible()


def test_a_model_is_unloaded_and_loaded(look: Look, server: RunningServer) -> None:
    page = look.go()
    page.get_by_role("button", name="unload texts").click()
    expect(page.get_by_text("unload of texts: done")).to_be_visible()
    assert server.index()["texts", "1"]["state"] == "UNAVAILABLE"
    page.get_by_role("button", name="load texts", exact=True).click()
    expect(page.get_by_role("button", name="unload texts")).to_be_visible()
    assert server.index()["texts", "1"]["state"] == "READY"


def test_a_model_has_its_tensors_config_and_buttons(look: Look, server: RunningServer) -> None:
    page = look.go("models/first")
    expect(page.get_by_role("region", name="Tensors")).to_contain_text("INPUT0")
    expect(page.get_by_label("Config", exact=True)).to_contain_text('"max_batch_size": 8')
    page.get_by_role("button", name="Unload", exact=True).click()
    expect(page.get_by_role("button", name="Load", exact=True)).to_be_visible()
    assert server.index()["first", "1"]["state"] == "UNAVAILABLE"
    page.get_by_role("button", name="Load", exact=True).click()
    expect(page.get_by_role("button", name="Load again")).to_be_visible()
    assert server.index()["first", "1"]["state"] == "READY"
    look.picture("model")


def test_why_a_model_failed_is_told_in_full(look: Look) -> None:
    page = look.go("models/broken")
    expect(page.get_by_role("region", name="Versions")).to_contain_text("it is a text file")


def test_numbers_are_typed_and_the_answer_is_a_table(look: Look) -> None:
    page = look.go("try/adder")
    page.get_by_label("Values", exact=True).fill("41")
    page.get_by_label("Version").select_option("2")
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("region", name="Values of y")).to_contain_text("43")
    look.picture("form")
    page.get_by_label("Values", exact=True).fill("many")
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("alert")).to_contain_text('"many" is no number of type FP32')


def test_what_the_server_refuses_is_told_in_its_words(look: Look) -> None:
    page = look.go("try/first")
    page.get_by_label("Shape").fill("1, 3")
    page.get_by_label("Values", exact=True).fill("1 2 3")
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("alert")).to_contain_text("INPUT0")


def test_the_request_is_spelled_as_it_can_be_run(look: Look) -> None:
    page = look.go("try/adder")
    page.get_by_label("Values", exact=True).fill("2")
    page.get_by_label("Version").select_option("2")
    page.get_by_role("button", name="Ask").click()
    spelled = page.locator("pre[aria-label^='The request as']")
    for language, command in (
        ("curl", ["bash", "-c"]), ("Python", [sys.executable, "-c"]),
        ("JavaScript", ["node", "--input-type=module", "-e"]),
    ):  # fmt: skip
        page.get_by_label("As", exact=True).last.select_option(language)
        expect(page.get_by_label(f"The request as {language}")).to_be_visible()
        program = spelled.inner_text()
        made = subprocess.run([*command, program], capture_output=True, text=True, check=False)
        assert made.returncode == 0, (program, made.stderr)
        assert re.search(r"\b4(\.0)?\b", made.stdout), made.stdout


def test_texts_come_back_as_texts(look: Look) -> None:
    page = look.go("try/texts")
    page.get_by_label("Values", exact=True).fill("gr\u00fc\u00df <b>dich</b>")
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_label("OUTPUT0", exact=True)).to_have_text("gr\u00fc\u00df <b>dich</b>")


def test_an_image_is_drawn_into_a_tensor_and_an_answer_shown_as_one(
    look: Look, tmp_path: Path
) -> None:
    path = tmp_path / "red.png"
    Image.new("RGB", (64, 48), (255, 0, 0)).save(path)
    page = look.go("try/picture")
    page.get_by_label("As", exact=True).select_option("image")
    page.get_by_label("File").set_input_files(path)
    page.get_by_role("button", name="Ask").click()
    picture = page.get_by_role("img", name="OUTPUT0 as a picture")
    expect(picture).to_be_visible()
    look.picture("image")
    pixel = picture.evaluate("c => [...c.getContext('2d').getImageData(16, 16, 1, 1).data]")
    assert pixel == [255, 0, 0, 255]


def test_a_file_of_bytes_is_a_tensor(look: Look, tmp_path: Path) -> None:
    path = tmp_path / "values.bin"
    path.write_bytes(np.arange(16, dtype=np.float32).tobytes())
    page = look.go("try/first")
    page.get_by_label("As", exact=True).select_option("file")
    page.get_by_label("File").set_input_files(path)
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("region", name="Values of OUTPUT0")).to_contain_text("15")


def test_a_chat_streams_and_goes_on(look: Look) -> None:
    page = look.go("chat")
    page.get_by_text("Settings").click()
    page.get_by_label("Most tokens").fill("8")
    said = page.get_by_role("log")
    for turn in (1, 2):
        page.get_by_label("Say", exact=True).fill(f"Hello {turn}")
        page.get_by_label("Say", exact=True).press("Enter")
        expect(said.get_by_text("first after")).to_have_count(turn)
    expect(said).to_contain_text("Hello 1")
    look.picture("chat")
    page.get_by_role("button", name="New conversation").click()
    expect(said.get_by_text("Hello 1")).to_have_count(0)


def test_two_are_compared_and_the_vote_is_kept(look: Look, server: RunningServer) -> None:
    page = look.go("chat")
    page.get_by_label("Compare two").check()
    page.get_by_text("Settings").click()
    page.get_by_label("Most tokens").fill("4")
    page.get_by_label("Say", exact=True).fill("Hello")
    page.get_by_role("button", name="Send").click()
    vote = page.get_by_role("button", name="Left is better")
    expect(vote).to_be_enabled()
    vote.click()
    expect(page.get_by_text("the vote is kept")).to_be_visible()
    expect(page.get_by_role("region", name="Votes")).to_contain_text("small")
    look.picture("compare")
    (row,) = [each for each in json.loads(server.get("/v2/feedback")[1]) if each["name"] == "vote"]
    assert (row["model"], row["count"], row["mean"]) == ("small", 2, 0.5)
    expect(vote).to_be_disabled()


def test_charts_have_a_line_for_what_was_asked(look: Look, server: RunningServer) -> None:
    for _ in range(20):
        server.post("/v2/models/whole/infer", ONES)
    page = look.go("charts")
    page.get_by_label("Of", exact=True).select_option("whole")
    figure = page.get_by_role("figure").filter(has_text="Requests a second")
    expect(figure.locator("canvas")).to_be_visible()
    look.picture("charts")


def test_traces_are_asked_for_and_drawn(look: Look, server: RunningServer) -> None:
    page = look.go("traces")
    page.get_by_role("button", name="Trace the next ones").click()
    expect(page.get_by_text("The next 20 requests are traced")).to_be_visible()
    server.post("/v2/models/whole/infer", ONES)
    row = page.get_by_role("row").filter(has_text="whole").first
    row.get_by_role("button").click()
    fall = page.locator(".waterfall")
    for part in ("whole 1", "first 1", "second 1"):
        expect(fall).to_contain_text(part)
    look.picture("traces")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Nothing is traced.")).to_be_visible()


def test_an_ensemble_is_drawn_with_the_times_of_a_trace(look: Look, server: RunningServer) -> None:
    page = look.go("graph/whole")
    picture = page.get_by_role("img", name="whole: inputs to first, first to second")
    expect(picture).to_be_visible()
    page.get_by_role("button", name="Trace its next requests").click()
    expect(page.get_by_text("The next 20 requests of it are traced")).to_be_visible()
    server.post("/v2/models/whole/infer", ONES)
    expect(picture.locator(".cost").first).to_contain_text("s, ")
    edges = page.get_by_role("region", name="Tensors between steps")
    expect(edges.get_by_role("row").filter(has_text="middle")).to_contain_text("B")
    look.picture("ensemble")


def test_a_roll_out_is_started_and_steered(look: Look) -> None:
    page = look.go("rollouts")
    page.get_by_text("Start one").click()
    page.get_by_label("Model").fill("adder")
    page.get_by_label("Version").fill("1")
    page.get_by_role("button", name="Start").click()
    card = page.get_by_role("region", name="Roll-out of adder")
    expect(card).to_contain_text("50 %")
    for command, phase in (("pause", "paused"), ("resume", "running"), ("abort", "aborted")):
        if command == "abort":
            look.picture("rollout")
            card.get_by_label("Reason to abort").fill("a test")
        card.get_by_role("button", name=f"{command} the roll-out").click()
        expect(card.locator(".state")).to_have_text(phase)
    card.get_by_role("link", name="adder").click()
    expect(page.get_by_role("heading", name="What happened")).to_be_visible()
    expect(page.locator(".history")).to_contain_text("a test")


def test_the_log_is_followed_and_searched(look: Look) -> None:
    page = look.go("logs")
    lines = page.get_by_role("region", name="Log lines")
    expect(lines).to_contain_text("model 'first' version 1 is ready")
    page.get_by_label("From level").select_option("error")
    expect(lines).to_contain_text("is not an ONNX model")
    expect(lines).not_to_contain_text("version 1 is ready")
    look.picture("log")
    page.get_by_label("With").fill("no such line")
    expect(lines.get_by_role("listitem")).to_have_count(0)


def test_the_api_is_told_from_its_document(look: Look, server: RunningServer) -> None:
    page = look.page
    page.goto(f"{look.base}/docs")
    document = json.loads(server.get("/openapi.json")[1])
    count = sum(len(methods) for methods in document["paths"].values())
    expect(page.locator(".operation")).to_have_count(count)
    page.get_by_label("Search").fill("/v1/chat/completions")
    operation = page.locator(".operation").first
    operation.locator("summary").first.click()
    expect(operation).to_contain_text("messages")
    expect(operation).to_contain_text("curl ")
    look.picture("docs")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Browser, server: RunningServer, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    look = Look.at(browser, server.http, DESK, scheme)
    found = {}
    for place in (*PLACES, None):
        if place is None:
            look.page.goto(f"{look.base}/docs")
            look.page.locator(".operation").first.wait_for()
        else:
            look.go(place)
        look.page.wait_for_load_state("networkidle")
        look.picture(f"{scheme}-{str(place or 'docs').replace('/', '-')}")
        for each in Axe().run(look.page).response["violations"]:
            found[place, each["id"]] = [node["html"] for node in each["nodes"]]
    look.close()
    assert found == {}


def test_all_fits_a_phone(browser: Browser, server: RunningServer) -> None:
    look = Look.at(browser, server.http, PHONE, "dark")
    for place in PLACES:
        look.go(place)
        look.page.wait_for_load_state("networkidle")
        look.picture(f"phone-{place.replace('/', '-')}")
        wide = look.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= PHONE["width"], place
    look.close()


def test_keys_of_the_keyboard_lead_everywhere(look: Look) -> None:
    page = look.go()
    page.keyboard.press("/")
    expect(page.get_by_label("Search")).to_be_focused()
    page.goto("about:blank")
    page = look.go()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.get_by_role("link", name="Charts").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Charts")
    expect(page.locator("main")).to_be_focused()


def test_light_and_dark_are_chosen_and_remembered(look: Look) -> None:
    page = look.go()
    back = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(back)
    page.get_by_role("button", name="Light or dark").click()
    dark = page.evaluate(back)
    assert dark != light
    page.reload()
    page.locator("h1").wait_for()
    assert page.evaluate(back) == dark

"""Log lines: three formats, request fields, and no client text that pretends to be a line."""

import json
import logging
import re
from pathlib import Path

import pytest

from trivet.server.logs.log import JsonFormatter, LineFormatter, setup_logging
from trivet.server.settings import Settings


def record(message: str, *, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("trivet", level, "/x/file.py", 7, message, None, None)
    for name, value in extra.items():
        setattr(made, name, value)
    return made


def test_the_default_format_is_triton_s() -> None:
    line = LineFormatter(iso8601=False).format(record("hello", request_id="r1", model="m"))
    assert re.fullmatch(
        r"I\d{4} \d\d:\d\d:\d\d\.\d{6} \d+ file\.py:7\] hello request_id=r1 model=m", line
    )


def test_iso_times_are_utc() -> None:
    line = LineFormatter(iso8601=True).format(record("hello", level=logging.WARNING))
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00 W \d+ file\.py:7\] hello", line)


def test_json_lines_hold_the_fields() -> None:
    fields = json.loads(JsonFormatter().format(record("a\nb", request_id="r1", version=3)))
    assert fields["msg"] == "a\nb"
    assert (fields["level"], fields["request_id"], fields["version"]) == ("info", "r1", 3)


@pytest.mark.parametrize("text", ["a\nI1123 fake line", "\x1b[31mred", "\x00\x7f\r"])
def test_control_characters_do_not_reach_the_terminal(text: str) -> None:
    line = LineFormatter(iso8601=False).format(record(text, request_id=text))
    assert re.search(r"[\x00-\x1f\x7f]", line.replace("\\n", "")) is None


def test_a_traceback_is_indented_below_its_line() -> None:
    made = record("failed", level=logging.ERROR)
    try:
        int("x\x1b\n")
    except ValueError as error:
        made.exc_info = (ValueError, error, error.__traceback__)
    lines = LineFormatter(iso8601=False).format(made).splitlines()
    assert all(line.startswith("    ") for line in lines[1:])
    assert "\x1b" not in lines[-1]


@pytest.fixture
def restored() -> object:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield None
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)


@pytest.mark.usefixtures("restored")
def test_switches_choose_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "log"
    setup_logging(Settings(log_file=str(path), log_info=False))
    log = logging.getLogger("trivet.test")
    log.debug("fine")
    log.info("some")
    log.warning("many")
    assert [line.split("] ")[1] for line in path.read_text().splitlines()] == ["many"]


@pytest.mark.usefixtures("restored")
def test_verbose_writes_debug_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    setup_logging(Settings(log_file=str(path), log_verbose=1, log_format="json"))
    logging.getLogger("trivet.test").debug("fine")
    assert json.loads(path.read_text())["msg"] == "fine"


@pytest.mark.parametrize("is_iso", [False, True])
def test_what_was_printed_has_the_printer_in_front_and_no_control_characters(is_iso: bool) -> None:
    line = LineFormatter(iso8601=is_iso).format(record("\x1b[31mhello", printed_by="m_0", pid=7))
    assert line == "[m_0] \\x1b[31mhello"


def test_printed_lines_are_json_with_the_process_that_printed() -> None:
    fields = json.loads(JsonFormatter().format(record("hello", printed_by="m_0", model="m", pid=7)))
    assert (fields["msg"], fields["level"], fields["model"]) == ("hello", "info", "m")
    assert (fields["pid"], fields["printed_by"]) == (7, "m_0")

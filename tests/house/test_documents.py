"""What the documents name exists: flags, links, files, make targets; every option is told."""

import re
from collections.abc import Iterator

import click
import pytest
from documents import ROOT, Document, documents

from trivet.server.cli import main
from trivet.server.commands.triton_flags import IGNORED_FLAGS
from trivet.server.settings import Row, rows

# Flags of other programs that the documents call.
FOREIGN_FLAGS = {"--hash", "--index-url"}


@pytest.fixture(params=documents(), ids=lambda document: document.name)
def document(request: pytest.FixtureRequest) -> Document:
    found: Document = request.param
    return found


def command_flags(command: click.Command, context: click.Context) -> Iterator[str]:
    """The long options of a command and of all commands below it."""
    for parameter in command.get_params(context):
        yield from (name for name in parameter.opts if name.startswith("--"))
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from command_flags(below, click.Context(below, parent=context))


def known_flags() -> set[str]:
    """Of the `trivet` command and of the bench."""
    bench = "".join(path.read_text() for path in (ROOT / "bench").glob("*.py"))
    arguments = re.findall(r"add_argument\(\s*\"(--[a-z-]+)\"", bench)
    ours = command_flags(main, click.Context(main))
    return {*ours, *IGNORED_FLAGS, *FOREIGN_FLAGS, *arguments}


def told_line(row: Row) -> str:
    """How the table of docs/operators.md tells of an option."""
    default = row.default
    if isinstance(default, bool):
        default = str(default).lower()
    elif isinstance(default, float):
        default = f"{default:g}"
    shown = f" `{default}` {row.option.unit}".rstrip() if default not in ((), "") else ""
    help_text = row.option.help
    if row.option.choices and row.name != "model_control_mode":
        help_text += ": " + ", ".join(f"`{choice}`" for choice in row.option.choices)
    return f"| `{row.flag}` |{shown} | {help_text} |"


def test_operators_page_tells_every_option_with_its_default() -> None:
    lines = (ROOT / "docs/operators.md").read_text().splitlines()

    assert [told_line(row) for row in rows() if told_line(row) not in lines] == []


def test_operators_page_tells_no_option_that_is_gone() -> None:
    section = (ROOT / "docs/operators.md").read_text().partition("## All options")[2]
    told = set(re.findall(r"^\| `--.*$", section, re.MULTILINE))

    assert told - {told_line(row) for row in rows()} == set()


def test_flags_that_a_document_names_exist(document: Document) -> None:
    assert document.flags() - known_flags() == set()


def test_links_lead_to_files_and_headings(document: Document) -> None:
    for target, anchor in document.links():
        assert target.exists(), f"{document.name} links to {target}, which is not there"
        if anchor:
            assert anchor in Document(target.resolve()).anchors()


def test_files_that_a_document_names_exist(document: Document) -> None:
    missing = [place for place in document.places() if not any(ROOT.glob(place.rstrip("/")))]

    assert missing == []


def test_make_targets_that_a_document_names_exist(document: Document) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    named = set(re.findall(r"(?:^|`)make ([a-z]+)", document.text, re.MULTILINE))

    assert named - targets == set()

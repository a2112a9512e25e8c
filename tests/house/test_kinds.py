"""The table of what may lie in a repository is made of what tests/acceptance declares and runs."""

import tomllib

import pytest
from acceptance import table
from acceptance.kind import Kind, all_kinds
from house_rules import ROOT

from trivet.backends.registry import abouts

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
KINDS = all_kinds()


def test_the_page_has_the_table() -> None:
    assert table.written() == table.table(KINDS.values()), "run `make kinds`"


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_a_kind_names_a_backend_and_an_extra_that_there_are(kind: Kind) -> None:
    assert kind.backend in abouts()
    assert not kind.extra or kind.extra in EXTRAS


SLOW_ALTOGETHER = {
    "tensorflow": "importing it takes seconds; tests/backends/tensorflow does so once in that tier",
}
"""Files of kinds of which none is of the ordinary tier, and why."""


def test_some_of_every_file_of_kinds_is_of_the_ordinary_tier() -> None:
    ordinary = {name.rpartition("-")[0] for name, kind in KINDS.items() if not kind.slow}

    assert {name.rpartition("-")[0] for name in KINDS} - ordinary == SLOW_ALTOGETHER.keys()

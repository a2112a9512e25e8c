"""Rooms show themselves: a folder of many loose files is one in which nothing can be found."""

import pytest
from house_rules import ROOT


@pytest.mark.parametrize(("folder", "limit"), [("server", 11), ("backends/llm", 10)])
def test_most_files_have_a_room(folder: str, limit: int) -> None:
    loose = sorted(path.name for path in (ROOT / folder).glob("*.py"))
    assert len(loose) <= limit, loose

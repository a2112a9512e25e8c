"""Test files are shared out by tables that name what exists, and groups stay whole."""

from house_rules import ROOT
from sharing_out import GROUPS, SECONDS, group_of


def test_the_tables_name_what_exists() -> None:
    paths = [path for paths in GROUPS.values() for path in paths]
    paths += [name for name in SECONDS if name not in GROUPS]
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_files_that_share_a_server_go_to_one_worker() -> None:
    assert group_of("tests/protocol/openai/test_tools.py::test_a[b::c]") == "language_server"
    assert group_of("tests/protocol/openai/test_client.py::test_a") == "language_server"
    assert group_of("tests/protocol/tgi/test_about.py::test_a") == "other_language_apis"
    assert group_of("tests/protocol/anthropic/test_client.py::test_a") == "other_language_apis"
    assert group_of("tests/protocol/test_nested.py::test_a") == "tests/protocol/test_nested.py"

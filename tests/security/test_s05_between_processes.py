"""S5: between processes. What crosses is data, never code; what connects them has no name and no
port; nothing listens but what the options say, and that on this machine only."""

import ast
import contextlib

import psutil
import pytest
from fault_room import Room
from house_rules import Source, sources, walk
from hypothesis import given
from hypothesis import strategies as st

from trivet.backends.llm.messages import FrameReader, unpack

CODE_CARRIERS = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "jsonpickle"}
NAMES_AN_ERROR = {("backends/pytorch/module.py", "pickle")}
"""For the class of an error that torch raises; ruff bans all other uses."""
READS_WHAT_IS_ALLOWED = {("backends/sklearn/files.py", "joblib")}
"""The files of models that the operator has named, in their own process; nothing between two."""
RUNNERS = {"eval", "exec", "compile", "__import__"}
# Who may run code, and whose it is.
OWN_CODE = {
    "backends/python/loader.py": "the model's own file, from the repository",
    "backends/pytorch/module.py": "the model's own class, from the repository",
}


@pytest.fixture(scope="module")
def modules() -> list[Source]:
    return sources()


def test_no_module_imports_what_carries_code(modules: list[Source]) -> None:
    found = {
        (source.name, name)
        for source in modules
        for node in ast.walk(source.tree)
        for name in _imported(node)
        if name.partition(".")[0] in CODE_CARRIERS
    }
    assert found == NAMES_AN_ERROR | READS_WHAT_IS_ALLOWED


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return []


def test_multiprocessing_which_pickles_is_not_used(modules: list[Source]) -> None:
    """But for shared memory and the start of processes, which send nothing."""
    allowed = {"multiprocessing.resource_tracker"}
    found = {
        (source.name, name)
        for source in modules
        for node in ast.walk(source.tree)
        for name in _imported(node)
        if name.startswith("multiprocessing") and name not in allowed
    }
    assert found == set()


def test_only_models_of_the_repository_are_run_as_code(modules: list[Source]) -> None:
    found = {
        source.name
        for source in modules
        for _, node in walk(source.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in RUNNERS
    }
    assert found <= OWN_CODE.keys(), found - OWN_CODE.keys()


def test_what_would_allow_pickles_is_said_in_one_place(
    modules: list[Source],
) -> None:
    options = {"weights_only": True, "allow_pickle": False, "trust_remote_code": False}
    found = [
        (source.name, node.arg, ast.unparse(node.value))
        for source in modules
        for node in ast.walk(source.tree)
        if isinstance(node, ast.keyword) and node.arg in options
    ]
    assert found
    said = [each for each in found if each[2] != str(options[str(each[1])])]
    # For models that the operator has named, in a process of their own.
    assert said == [("backends/pytorch/pickled.py", "weights_only", "False")]


@pytest.mark.usefixtures("unharmed")
def test_nothing_listens_but_the_three_ports_and_only_here(room: Room) -> None:
    server = psutil.Process(room.pid)
    listening = [
        (process.pid, each.laddr)
        for process in (server, *server.children(recursive=True))
        for each in process.net_connections(kind="inet")
        if each.status == psutil.CONN_LISTEN
    ]
    assert {pid for pid, _ in listening} == {room.pid}
    assert {address.ip for _, address in listening} == {"127.0.0.1"}
    ports = {room.server.http_port, room.server.grpc_port, room.server.metrics_port}
    assert {address.port for _, address in listening} == ports


@given(st.binary(max_size=300))
def test_no_bytes_make_an_engine_s_frame_run_or_crash(body: bytes) -> None:
    with contextlib.suppress(ValueError):
        unpack(body)
    with contextlib.suppress(ValueError):
        list(FrameReader().feed(len(body).to_bytes(4, "little") + body + body))


def test_a_frame_that_claims_gigabytes_is_refused_before_it_comes() -> None:
    with pytest.raises(ValueError, match="at most"):
        list(FrameReader().feed(b"\xff\xff\xff\xff"))

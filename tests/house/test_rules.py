"""The rules of style that no linter has: sizes, names, docstrings, and who may catch everything."""

import ast
import re

import pytest
from house_rules import Source, sources

MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 400
NOUNLESS_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX)\b")

# `python -m trivet.protos.generate` tells what it wrote. The verbs print through click and rich.
PRINTING_COMMANDS = {"protos/generate.py"}

# Who may catch everything, and why nothing narrower would do.
DOORS = {
    ("server/http/door.py", "Door._answer"): "every HTTP request, answered without its text",
    ("server/http/sinks.py", "Exchange.run"): "every callback of one, the same",
    ("server/grpc/service.py", "Service._spawn.run"): "every unary RPC, answered INTERNAL",
    ("server/grpc/service.py", "UnarySink.send"): "an answer: without an end its client would wait",
    ("server/grpc/stream.py", "InferStream.respond"): "the same in a stream, which goes on",
    ("server/grpc/http2/call.py", "Http2Call._guarded"): "every RPC handler, answered INTERNAL",
    ("server/grpc/http2/connection.py", "Connection._handle"): "a bug costs one connection",
    ("server/scheduling/worker.py", "Worker.compute"): "the instance's thread: models raise all",
    ("server/scheduling/worker.py", "Worker._run"): "the same while it closes",
    ("server/models/loader.py", "Loader.open"): "backends raise anything while they open",
    ("server/models/loader.py", "Loader.make"): "unpackers and installers do, too",
    ("server/models/warmup.py", "_run"): "user code: execute",
    (
        "server/models/sleeping/residency.py",
        "Residency._wake",
    ): "what has no end would leave requests waiting for ever",
    (
        "server/models/sleeping/residency.py",
        "Residency._fall_asleep",
    ): "the same of what falls asleep",
    ("server/remote/follower.py", "Follower._error_of"): "a round, told to whoever waits for it",
    ("server/remote/follower.py", "Follower._poll"): "a round: the next one may go better",
    (
        "backends/llm/engine/attempts.py",
        "Attempts._try",
    ): "the engine's loop: a step costs its rows",
    ("backends/llm/engine/engine.py", "Engine._look"): "the same of an image: its requests fail",
    (
        "backends/llm/engine/engine.py",
        "Engine._launch",
    ): "the same, a step ahead: it is tried again alone",
    (
        "backends/llm/engine/adapting.py",
        "AdapterReader._run",
    ): "a reader's thread: an adapter is refused, and who waits for it gets an end",
    (
        "backends/llm/speculation/speculation.py",
        "Speculation._guess",
    ): "a guess that cannot be made costs no request anything",
    (
        "backends/llm/sampling/sampler.py",
        "_try_process",
    ): "a request's own rules must not hurt others",
    (
        "backends/encoder/tokens.py",
        "FolderTokenizer.__init__",
    ): "tokenizers raises Exception itself",
    (
        "backends/llm/text/tokenizer_files.py",
        "read_tokenizer",
    ): "the library raises Exception itself",
    (
        "backends/llm/process/child.py",
        "run_engine",
    ): "a model that does not open, told to the parent",
    (
        "backends/llm/sampling/grammar_compiling.py",
        "GrammarCompiler._compiled",
    ): "a thread of its own: one request",
    ("backends/process/instance.py", "ProcessInstance._keep_one"): "the keeper's thread",
    ("backends/process/child.py", "_Server._start"): "the child's side of the loader's door",
    ("backends/process/child.py", "_execute"): "the child's side of the instance's door",
    ("backends/process/child.py", "_Server._send"): "a reply that cannot be sent costs its batch",
    ("backends/process/remote.py", "RemoteSender._send"): "the same for a response: one request",
    ("backends/python/answers.py", "ModelOutputs.made"): "user code's objects: one request's error",
    (
        "backends/python/instance.py",
        "PythonInstance._execute_plain",
    ): "user code: execute; what it has sent before is answered",
    ("backends/python/instance.py", "PythonInstance.open"): "user code: initialize",
    ("backends/python/instance.py", "PythonInstance.is_ready"): "user code: is_ready",
    ("backends/python/instance.py", "PythonInstance.close"): "user code: finalize",
    ("backends/python/completion.py", "describe"): "user code: auto_complete_config",
    ("backends/pytorch/module.py", "_new_module"): "user code: the model's class",
    ("backends/pytorch/pickled.py", "load_pickled"): "a pickle raises what it likes",
    ("backends/sklearn/files.py", "read_pickle"): "the same",
    ("backends/sklearn/files.py", "read_skops"): "what is raised depends on the file's damage",
    ("backends/tabular/estimator.py", "_output"): "a model's own code, tried at a row of zeros",
    ("backends/mlflow/pyfunc.py", "PyfuncInstance.open"): "the code and pickles of a folder",
    ("backends/pytorch/exported.py", "_load"): "what is raised depends on the file's damage",
    ("backends/pytorch/archive.py", "_check_tensors_only"): "whatever it is, the file is refused",
    ("backends/testing/streams.py", "StreamInstance._send"): "the top of the stream's own thread",
}


@pytest.fixture(scope="module")
def modules() -> list[Source]:
    found = sources()
    assert len(found) > 100
    return found


def test_no_function_is_longer_than_a_screen(modules: list[Source]) -> None:
    sizes = {
        f"{module.name}: {name}": (node.end_lineno or 0) - node.lineno + 1
        for module in modules
        for name, node in module.functions()
    }

    assert {name: size for name, size in sizes.items() if size > MAX_FUNCTION_LINES} == {}


def test_no_file_is_longer_than_a_chapter(modules: list[Source]) -> None:
    sizes = {module.name: len(module.text.splitlines()) for module in modules}

    assert {name: size for name, size in sizes.items() if size > MAX_FILE_LINES} == {}


def test_every_module_says_what_it_owns(modules: list[Source]) -> None:
    silent = [module for module in modules if not ast.get_docstring(module.tree)]

    # An empty __init__.py makes a folder a package and owns nothing.
    assert [module.name for module in silent if module.text.strip()] == []
    assert {module.path.name for module in silent} <= {"__init__.py"}


def test_modules_are_named_for_nouns(modules: list[Source]) -> None:
    parts = {module.name: module.name.removesuffix(".py").split("/") for module in modules}

    assert [name for name in parts if not NOUNLESS_NAMES.isdisjoint(parts[name])] == []


def test_nothing_is_left_for_later(modules: list[Source]) -> None:
    assert [module.name for module in modules if UNFINISHED.search(module.text)] == []


def test_only_a_command_prints(modules: list[Source]) -> None:
    printing = {module.name: module.prints() for module in modules if module.prints()}

    assert printing.keys() <= PRINTING_COMMANDS


def test_only_a_door_catches_everything(modules: list[Source]) -> None:
    catching = {(each.name, function) for each in modules for function in each.broad_handlers()}

    assert catching - DOORS.keys() == set()
    assert DOORS.keys() - catching == set(), "listed, but catches no longer"

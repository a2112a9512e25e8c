"""One server over the small language model and an identity model, for all tests of this folder."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from llm_site import REPOSITORY, Call, caller
from patience import patience
from serving import RunningServer, start_server, write_identity

CONFIG = """
backend: "llm"
parameters { key: "kv_cache_bytes" value { string_value: "402653184" } }
parameters { key: "dtype" value { string_value: "float32" } }
"""
"""In float32, equal prompts give equal texts whatever shares their steps."""


def write_smollm2(repository: Path) -> None:
    (repository / "smollm2" / "1").mkdir(parents=True)
    (repository / "smollm2" / "config.pbtxt").write_text(CONFIG)
    (weights,) = (REPOSITORY / "smollm2" / "1").glob("*.gguf")
    mine = repository / "smollm2" / "1" / weights.name
    try:
        mine.hardlink_to(weights)
    except OSError:  # another file system
        shutil.copyfile(weights, mine)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    if not any((REPOSITORY / "smollm2" / "1").glob("*.gguf")):
        pytest.skip("no weights of smollm2: run model_repository/build.py")
    repository = tmp_path_factory.mktemp("models")
    write_smollm2(repository)
    write_identity(repository, "identity")
    opened = start_server(repository)
    yield opened
    opened.end()


@pytest.fixture
def call(server: RunningServer) -> Call:
    return caller(server)


@pytest.fixture
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    """OpenAI's own client, unmodified; it does not try again, so that errors are seen."""
    with openai.OpenAI(
        base_url=f"http://{server.http}/v1", api_key="none", max_retries=0, timeout=patience()
    ) as made:
        yield made

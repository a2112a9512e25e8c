"""Trees in a server: bad files and bad requests cost nobody else anything."""

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest
from heard import hear
from patience import patience
from serving import RunningServer, start_server
from tree_models import ROWS, Home


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    repository = tmp_path_factory.mktemp("repository")
    Home(repository / "herd").put("model.ubj", "three")
    cut = Home(repository / "cut")
    cut.put("model.ubj", "three")
    content = cut.path("model.ubj").read_bytes()
    cut.path("model.ubj").write_bytes(content[: len(content) // 2])
    (repository / "pickled" / "1").mkdir(parents=True)
    (repository / "pickled" / "1" / "model.pkl").write_bytes(b"\x80\x04K\x05.")
    running = start_server(
        repository, "--no-progress", "--exit-on-error=false", "--strict-readiness=false"
    )
    yield running
    running.end()
    shutil.rmtree(repository)


def ask(server: RunningServer, rows: np.ndarray) -> tuple[int, str]:
    """Status and body."""
    tensor = {"name": "input__0", "datatype": "FP32", "shape": list(rows.shape)}
    body = json.dumps({"inputs": [{**tensor, "data": rows.ravel().tolist()}]}).encode()
    request = urllib.request.Request(f"http://{server.http}/v2/models/herd/infer", data=body)
    try:
        with urllib.request.urlopen(request, timeout=patience()) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        text = error.read().decode()
        hear(error.code, text=text)
        return error.code, text


@pytest.mark.rows("V64")
def test_another_number_of_features_is_told_with_both(server: RunningServer) -> None:
    server.wait_until(lambda: server.get("/v2/models/herd/ready")[0] == 200, "trees")

    status, text = ask(server, np.zeros((2, 4), np.float32))

    assert status == 400
    assert "4" in text
    assert "5" in text
    status, text = ask(server, np.nan_to_num(ROWS[1:3]))
    assert status == 200
    found = json.loads(text)["outputs"][0]
    assert found["shape"] == [2, 3]


@pytest.mark.more_of("R29")
def test_a_file_cut_in_half_is_told_and_the_others_serve(server: RunningServer) -> None:
    server.wait_until(lambda: bool(reason(server, "cut")), "a reason")

    assert "'model.ubj' could not be read by XGBoost" in reason(server, "cut")
    assert "skops.io.dump" in reason(server, "pickled")
    assert "--allow-pickle pickled," in reason(server, "pickled")
    assert ask(server, np.nan_to_num(ROWS[:1]))[0] == 200


def reason(server: RunningServer, model: str) -> str:
    entries = [entry for (name, _), entry in server.index().items() if name == model]
    return " ".join(entry.get("reason", "") for entry in entries)

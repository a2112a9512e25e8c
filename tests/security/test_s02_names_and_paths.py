"""S2: names never become paths. A model is looked up among those that the scan has found; what a
config names lies in the model's folder; archives are not unpacked.

The names themselves are rows R01-R03, the fields of configs R15, links R13.
"""

import json
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from audit import Audit, watched
from fault_models import write_model
from http_site import FakeCore, open_site
from row_marks import shows
from serving import RunningServer

from trivet.backends.api import ServingError
from trivet.server.models.catalog import RegistryCatalog
from trivet.server.models.loader import Loader
from trivet.server.models.registry import Registry
from trivet.server.repository.scan import scan

NAMES = [
    "../etc", "..", "a/../../etc/passwd", "/etc/passwd", "%2e%2e%2fetc", "a%00b", "~root",
    "..%2f..%2fetc%2fpasswd", "....//etc", "..\\..\\etc", "file:///etc/passwd",
]  # fmt: skip
SECRET = "swordfish"

LOAD = Path("/proc/loadavg")


def outside(seen: Audit, *roots: Path) -> list[str]:
    """What was opened elsewhere, but for Python's own modules and what our patience looks at."""
    import sys

    own = [*roots, Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[2], LOAD]
    return [
        path
        for path in seen.opened
        if not any(Path(path).resolve().is_relative_to(root.resolve()) for root in own)
    ]


@pytest.mark.parametrize("name", NAMES)
async def test_no_name_in_a_url_opens_a_file(name: str) -> None:
    core = FakeCore()
    site = await open_site(core)
    paths = [
        f"/v2/models/{name}/config",
        f"/v2/models/{name}/versions/1/infer",
        f"/v1/models/{name}",
    ]
    try:
        async with site.session.get("/v2/health/live"):
            pass
        with watched() as seen:
            for path in paths:
                head = f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
                answer = await site.send_raw(head.encode("latin-1"))
                assert answer.split()[1] in (b"400", b"404", b"405"), answer
                assert b"root:" not in answer
    finally:
        await site.close()
    assert outside(seen) == []
    assert core.control == []


def fields_of(outer: str) -> dict[str, str]:
    """Configs that name a file outside of their model's folder."""
    tensors = (
        'input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ 4 ] } ]\n'
        'output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 4 ] %s } ]\n'
    )
    plain = tensors % ""
    warm = (
        'model_warmup { name: "w" inputs { key: "INPUT0" value { data_type: TYPE_FP32 dims: [ 4 ] '
        'input_data_file: "%s" } } }'
    )
    state = (
        'sequence_batching { state { input_name: "S" output_name: "T" data_type: TYPE_FP32 '
        'dims: [ 1 ] initial_state { name: "i" data_type: TYPE_FP32 dims: [ 1 ] data_file: "%s" '
        "} } }"
    )
    word = 'backend: "%s"\n'
    return {
        "labels": word % "identity" + tensors % f'label_filename: "{outer}"',
        "model file": word % "onnxruntime" + f'default_model_filename: "{outer}"\n',
        "Python file": word % "python" + plain + f'default_model_filename: "{outer}"\n',
        "weights": word % "llm"
        + f'parameters {{ key: "model_path" value {{ string_value: "{outer}" }} }}',
        "torch module": word % "pytorch"
        + plain
        + f'parameters {{ key: "MODULE" value {{ string_value: "{outer}" }} }}',
        "warm-up": word % "identity" + plain + warm % outer,
        "initial state": word % "identity" + "max_batch_size: 1\n" + plain + state % outer,
    }


@pytest.mark.parametrize("spelling", ["above", "absolute", "through a folder"])
@pytest.mark.parametrize("what", fields_of(""))
def test_no_field_of_a_config_reaches_out_of_the_folder(
    tmp_path: Path, what: str, spelling: str
) -> None:
    root = tmp_path / "models"
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    folder = write_model(root, "m", inputs=[("INPUT0", "FP32", "4")])
    (folder / "1" / "model.py").write_text("class TritonPythonModel: pass\n")
    outer = {
        "above": "../../../secret",
        "absolute": str(secret),
        "through a folder": "1/../../../secret",
    }
    (folder / "config.pbtxt").write_text(fields_of(outer[spelling])[what])
    loader = Loader(RegistryCatalog(Registry()))
    with watched() as seen, pytest.raises(ServingError) as caught:
        loader.open(loader.plan(scan([root]).models["m"], None), 1)
    assert str(secret) not in seen.opened
    assert [path for path in outside(seen, root) if "secret" in path] == []
    assert SECRET not in caught.value.message


OUTSIDE = ["file:../../x", "file:/abs", "file:1/../../x", "file:x", "file:"]


@pytest.mark.parametrize(
    ("flag", "keys"),
    [
        ("--allow-model-upload=false", [*OUTSIDE, "file:1/model.py"]),
        ("--allow-model-upload=true", OUTSIDE),
    ],
    ids=["not allowed", "allowed"],
)
def test_no_file_comes_in_with_a_load_or_leads_out_of_its_version(
    serve: Callable[..., RunningServer], tmp_path: Path, flag: str, keys: list[str]
) -> None:
    (tmp_path / "models").mkdir()
    server = serve(tmp_path / "models", "--model-control-mode=explicit", flag)
    for key in keys:
        body = {"parameters": {"config": '{"backend": "python"}', key: "aW1wb3J0IG9z"}}
        with pytest.raises(urllib.error.HTTPError, match="400"):
            server.post("/v2/repository/models/m/load", body)
    assert list(tmp_path.rglob("*")) == [tmp_path / "models"]
    assert not Path("/abs").exists()


@pytest.mark.parametrize(
    ("path", "statuses"),
    [
        shows("O45a", "/v1/chat/completions", {415}),
        shows("O45a", "/v1/embeddings", {415}),
        shows("O45b", "/v1/audio/transcriptions", {404}),
        shows("O45a", "/generate", {415}),
        shows("O45c", "/v2/models/ident/infer", {400}),
        shows("O45c", "/v2/repository/models/ident/load", {400}),
    ],
)
async def test_the_file_name_of_a_form_is_no_path(path: str, statuses: set[int]) -> None:
    form = aiohttp.FormData()
    form.add_field("file", b"x", filename="../../../../tmp/trivet-canary", content_type="audio/wav")
    site = await open_site(FakeCore())
    try:
        async with site.session.get("/v2/health/live"):
            pass
        with watched() as seen:
            async with site.session.post(path, data=form) as answer:
                assert answer.status in statuses
    finally:
        await site.close()
    assert seen.opened == []


def test_an_override_may_not_point_elsewhere_either(tmp_path: Path) -> None:
    root = tmp_path / "models"
    (tmp_path / "secret").write_text(SECRET)
    write_model(root, "m", inputs=[("INPUT0", "FP32", "4")])
    tensor: dict[str, Any] = {"name": "INPUT0", "data_type": "TYPE_FP32", "dims": [4]}
    labelled = tensor | {"name": "OUTPUT0", "label_filename": "../../secret"}
    config = {"backend": "identity", "input": [tensor], "output": [labelled]}
    loader = Loader(RegistryCatalog(Registry()))
    with watched() as seen, pytest.raises(ServingError, match="label_filename"):
        loader.open(loader.plan(scan([root]).models["m"], json.dumps(config)), 1)
    assert [path for path in seen.opened if "secret" in path] == []

"""ONNX files that lie in an encoder's folder."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from encoder_folders import TEXTS, add_dense, add_modules, export_onnx, make_encoder
from encoder_site import answer, open_encoder
from onnx import TensorProto, helper, numpy_helper

from trivet.backends.api import InvalidConfig, LoadFailed

VECTORS = np.random.default_rng(5).normal(size=(90, 32)).astype(np.float32)


def put_table(path: Path, output: str = "last_hidden_state") -> None:
    """A model whose token vectors are rows of a table."""
    shape = ["rows", "tokens"]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, shape)
        for name in ("input_ids", "attention_mask")
    ]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, [*shape, 32])]
    nodes = [helper.make_node("Gather", ["table", "input_ids"], [output])]
    table = numpy_helper.from_array(VECTORS, "table")
    graph = helper.make_graph(nodes, "table", inputs, outputs, [table])
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, ir_version=10), path)


def without_weights(folder: Path) -> Path:
    (folder / "model.safetensors").unlink()
    return folder


@pytest.mark.parametrize("place", ["model.onnx", "onnx/model.onnx"])
def test_an_onnx_file_computes_where_there_are_no_other_weights(tmp_path: Path, place: str) -> None:
    folder = without_weights(make_encoder(tmp_path / "m/1"))
    put_table(folder / place)

    found = answer(
        open_encoder(folder), "hot dishes", TEXTS[1], outputs=("embedding", "num_tokens")
    )

    ids = [2, 8, 9, 3]
    np.testing.assert_allclose(found["embedding"][0], VECTORS[ids].mean(axis=0), atol=1e-6)
    assert found["num_tokens"].tolist() == [[4], [15]]


@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode": ["cls", "max", "lasttoken"]},
        {"pooling_mode": ["weightedmean", "mean_sqrt_len_tokens"]},
    ],
    ids=str,
)
def test_modules_are_the_same_in_numpy_and_in_torch(
    tmp_path: Path, pooling: dict[str, Any]
) -> None:
    """Both read the same folder; the bodies differ, so the vectors behind one are put into both."""
    folder = make_encoder(tmp_path / "m/1", "bert")
    add_modules(folder, "Pooling", pooling=pooling)
    by_torch = open_encoder(folder)
    put_table(folder / "onnx/model.onnx")
    by_onnx = open_encoder(folder, compute="onnx")

    class Table(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            values = torch.from_numpy(VECTORS)[input_ids]
            return type("Output", (), {"last_hidden_state": values})

    body = by_torch._body  # type: ignore[attr-defined] # the one part that is put in
    body._model, body._takes_types = Table(), False

    found, wanted = (answer(each, *TEXTS)["embedding"] for each in (by_torch, by_onnx))

    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_dense_modules_need_no_torch(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "m/1")
    add_modules(folder, "Pooling", "Dense", "Normalize")
    add_dense(folder, 2)
    put_table(folder / "onnx/model.onnx")

    found = answer(open_encoder(folder, compute="onnx"), *TEXTS)["embedding"]

    assert found.shape == (4, 12)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "m/1", "bert", "ForSequenceClassification", ("a", "b"))
    with pytest.raises(InvalidConfig, match=r"has no model\.onnx, at the top or in onnx/"):
        open_encoder(folder, compute="onnx")
    with pytest.raises(InvalidConfig, match="compute is 'jax'; it may be torch or onnx"):
        open_encoder(folder, compute="jax")
    (folder / "model.onnx").write_bytes(b"no model")
    with pytest.raises(LoadFailed, match=r"ONNX Runtime cannot load model\.onnx"):
        open_encoder(folder, compute="onnx")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter
def test_an_exported_model_gives_torch_s_vectors(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "m/1")
    wanted = answer(open_encoder(folder), *TEXTS)["embedding"]
    export_onnx(folder)

    found = answer(open_encoder(without_weights(folder)), *TEXTS)["embedding"]

    np.testing.assert_allclose(found, wanted, atol=2e-5)

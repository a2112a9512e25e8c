"""The model itself, from an ONNX file that lies in the folder."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from trivet.backends.api import LoadFailed, Placement
from trivet.backends.api.encoder import Task
from trivet.backends.encoder.computing import Computed, Padded
from trivet.backends.encoder.folder import Folder

# ONNX Runtime's errors have no base class of their own.
_ERRORS: tuple[type[Exception], ...] = (
    errors.EPFail,
    errors.Fail,
    errors.InvalidArgument,
    errors.InvalidGraph,
    errors.InvalidProtobuf,
    errors.NotImplemented,
    errors.RuntimeException,
)
_TOKEN_VECTORS = ("last_hidden_state", "token_embeddings", "hidden_states")
_VECTORS = ("sentence_embedding", "embedding", "pooler_output")


class OnnxBody:
    """A Body."""

    arrays = np

    def __init__(self, folder: Folder, path: Path, placement: Placement) -> None:
        """Raises LoadFailed."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = max(1, placement.cpu_threads)
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=_providers(placement)
            )
        except _ERRORS as error:
            raise LoadFailed(f"ONNX Runtime cannot load {path.name}: {error}") from error
        _check_started(self._session, placement, path.name)
        self._inputs = {each.name for each in self._session.get_inputs()}
        unknown = self._inputs - {"input_ids", "attention_mask", "token_type_ids"}
        if unknown:
            raise LoadFailed(
                f"{path.name} has inputs that a tokenizer does not make: {sorted(unknown)}"
            )
        self._output = _output(self._session, folder.task, path.name)

    def compute(self, padded: Padded) -> Computed:
        """See Body."""
        given = {
            "input_ids": padded.ids,
            "attention_mask": padded.mask,
            "token_type_ids": padded.types,
        }
        feed = {name: given[name] for name in self._inputs}
        (values,) = self._session.run([self._output], feed)
        return Computed(values, padded.mask)

    def weights(self, path: Path) -> dict[str, Any]:
        """See Body. Raises LoadFailed."""
        file = path / "model.safetensors"
        if not file.exists():
            raise LoadFailed(f"the folder has no {path.name}/{file.name}")
        from safetensors.numpy import load_file  # Only Dense and LayerNorm need it.

        return dict(load_file(file))

    def on_host(self, values: Any) -> np.ndarray:
        """See Body."""
        found: np.ndarray = values.astype(np.float32, copy=False)
        return found


def _providers(placement: Placement) -> list[Any]:
    if placement.kind != "KIND_GPU":
        return ["CPUExecutionProvider"]
    return [("CUDAExecutionProvider", {"device_id": placement.device_id}), "CPUExecutionProvider"]


def _check_started(session: Any, placement: Placement, name: str) -> None:
    """ONNX Runtime goes on without a provider that does not start; a slow model is no answer."""
    if placement.kind == "KIND_GPU" and "CUDAExecutionProvider" not in session.get_providers():
        raise LoadFailed(
            f"{name}: ONNX Runtime {onnxruntime.__version__} could not start CUDA: pip install "
            "'trivet[onnx-gpu]', or place the model on a CPU by instance_group KIND_CPU"
        )


def _output(session: Any, task: Task, name: str) -> str:
    """Which output is read. Raises LoadFailed."""
    ranks = {each.name: len(each.shape) for each in session.get_outputs()}
    if task is not Task.EMBED:
        wanted = ("logits",)
    elif found := [each for each in _TOKEN_VECTORS if each in ranks]:
        return found[0]
    else:
        wanted = tuple(each for each, rank in ranks.items() if rank == 3) or _VECTORS
    known = [each for each in wanted if each in ranks] or (list(ranks) if len(ranks) == 1 else [])
    if not known:
        raise LoadFailed(f"{name} has none of the outputs {list(wanted)}; it has {list(ranks)}")
    return known[0]

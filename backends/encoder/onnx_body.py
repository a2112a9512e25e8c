"""The model itself, from an ONNX file that lies in the folder."""

from pathlib import Path
from typing import Any

import numpy as np

from trivet.backends.api import LoadFailed, Placement
from trivet.backends.api.encoder import Task
from trivet.backends.encoder.computing import Computed, Padded
from trivet.backends.encoder.folder import Folder
from trivet.backends.encoder.turns import OneAtATime
from trivet.backends.hugging_face.onnx_session import open_session

_TOKEN_VECTORS = ("last_hidden_state", "token_embeddings", "hidden_states")
_VECTORS = ("sentence_embedding", "embedding", "pooler_output")


class OnnxBody:
    """A Body."""

    arrays = np

    def __init__(self, folder: Folder, path: Path, placement: Placement) -> None:
        """Raises LoadFailed."""
        # Were its threads to spin in between, they would take the cores from the event loop, and
        # from the instance that reads texts meanwhile.
        self._session = open_session(path, placement, spins=False)
        self.turns = OneAtATime()
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

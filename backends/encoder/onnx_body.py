"""The model itself, from an ONNX file that lies in the folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trivet.backends.api import LoadFailed, Placement
from trivet.backends.api.encoder import Task
from trivet.backends.encoder.computing import Compute, Computed, Padded
from trivet.backends.encoder.cores import Cores
from trivet.backends.encoder.folder import Folder
from trivet.backends.hugging_face.onnx_session import open_session

_TOKEN_VECTORS = ("last_hidden_state", "token_embeddings", "hidden_states")
_MOST_TWICE_BYTES = 512 << 20
"""Of a file that is opened twice, with all threads and with an instance's share: a session has one
number for life, and weights of its own. A larger one has all threads for each batch."""
_VECTORS = ("sentence_embedding", "embedding", "pooler_output")


class OnnxBody:
    """A Body."""

    arrays = np

    def __init__(self, folder: Folder, path: Path, placement: Placement, share: int) -> None:
        """`placement` has the threads of all instances, of which `share` are one's. Raises
        LoadFailed."""
        # Threads that spin between operations would take the cores from others and the event loop.
        self._session = self._shared = open_session(path, placement, spins=False)
        self._cores = Cores(placement.cpu_threads)
        if share < placement.cpu_threads and _size_bytes(path) <= _MOST_TWICE_BYTES:
            placed = replace(placement, cpu_threads=share)
            self._shared = open_session(path, placed, spins=False)
        self._inputs = {each.name for each in self._session.get_inputs()}
        unknown = self._inputs - {"input_ids", "attention_mask", "token_type_ids"}
        if unknown:
            raise LoadFailed(
                f"{path.name} has inputs that a tokenizer does not make: {sorted(unknown)}"
            )
        self._output = _output(self._session, folder.task, path.name)

    @contextmanager
    def working(self) -> Iterator[Compute]:
        """See Body."""
        with self._cores.shared() as num_threads:
            is_alone = num_threads == self._cores.num_threads
            yield partial(self._compute, self._session if is_alone else self._shared)

    def _compute(self, session: Any, padded: Padded) -> Computed:
        given = {
            "input_ids": padded.ids,
            "attention_mask": padded.mask,
            "token_type_ids": padded.types,
        }
        feed = {name: given[name] for name in self._inputs}
        (values,) = session.run([self._output], feed)
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


def _size_bytes(path: Path) -> int:
    """With the weights that lie beside it."""
    files = path.parent.glob(f"{path.stem}.onnx*")
    return sum(file.stat().st_size for file in files)


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

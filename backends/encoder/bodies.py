"""Opens models, one for all CPU instances of a version: one computes while another reads texts."""

import threading
from dataclasses import replace
from pathlib import Path
from weakref import WeakValueDictionary

from trivet.backends.api import Placement
from trivet.backends.encoder.computing import Body
from trivet.backends.encoder.folder import Folder
from trivet.protos.model_config_pb2 import ModelConfig, ModelInstanceGroup

_Key = tuple[object, ...]


class Bodies:
    """Those in use. Held weakly: one lives as long as an instance has it. The key has the state of
    all files, so that a file replaced in place never meets an older body."""

    def __init__(self) -> None:
        self._shared: WeakValueDictionary[_Key, Body] = WeakValueDictionary()
        self._lock = threading.Lock()

    def get(self, compute: str, folder: Folder, placement: Placement, dtype: str) -> Body:
        """`compute`: "torch" or "onnx". Raises LoadFailed, ModuleNotFoundError."""
        if placement.kind == "KIND_GPU":
            return _open(compute, folder, placement, dtype)
        key = (compute, dtype, placement.cpu_threads, folder.path, *_states(folder.path))
        with self._lock:
            body = self._shared.get(key)
        if body is None:
            body = _open(compute, folder, placement, dtype)
            with self._lock:
                body = self._shared.setdefault(key, body)
        return body


def with_all_threads(placement: Placement, config: ModelConfig) -> Placement:
    """Of an instance that shares its body: with the threads of all that do, since one that is
    alone may use them."""
    if placement.kind == "KIND_GPU":
        return placement
    groups = [each for each in config.instance_group if each.kind != ModelInstanceGroup.KIND_GPU]
    num_instances = max(1, sum(max(1, group.count) for group in groups))
    return replace(placement, cpu_threads=max(1, placement.cpu_threads) * num_instances)


def of_one_instance(config: ModelConfig) -> ModelConfig:
    """The config for a process that holds one instance: it shares nothing."""
    alone = ModelConfig()
    alone.CopyFrom(config)
    for group in alone.instance_group:
        group.count = 1
    del alone.instance_group[1:]
    return alone


def _open(compute: str, folder: Folder, placement: Placement, dtype: str) -> Body:
    if compute == "onnx":
        from trivet.backends.encoder.onnx_body import OnnxBody

        assert folder.onnx is not None, "checked before"
        return OnnxBody(folder, folder.onnx, placement)
    from trivet.backends.encoder.torch_body import TorchBody

    return TorchBody(folder, placement, dtype)


def _states(folder: Path) -> tuple[tuple[str, int, int, int], ...]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    states = ((str(path), path.stat()) for path in files)
    return tuple((name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in states)

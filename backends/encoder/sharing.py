"""What all CPU instances of a version share: one computes while another reads texts."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from trivet.backends.api import Placement
from trivet.protos.model_config_pb2 import ModelConfig, ModelInstanceGroup

T = TypeVar("T")
Key = tuple[object, ...]


class _Turn:
    """To open one thing; there as long as somebody waits for it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


class Shared(Generic[T]):
    """Things in use, each opened once. Held weakly: one lives as long as an instance has it."""

    def __init__(self) -> None:
        self._things: WeakValueDictionary[Key, T] = WeakValueDictionary()
        self._opening: WeakValueDictionary[Key, _Turn] = WeakValueDictionary()
        self._lock = threading.Lock()

    def get(self, key: Key, open_it: Callable[[], T]) -> T:
        """Raises what opening raises. Whoever wants what is being opened waits for it: opened twice
        it would take twice the memory. Others go on."""
        with self._lock:
            turn = self._opening.setdefault(key, _Turn())
        with turn.lock:
            with self._lock:
                found = self._things.get(key)
            if found is None:
                found = open_it()
                with self._lock:
                    self._things[key] = found
        return found


def key_of(folder: Path, *more: object) -> Key:
    """With the state of all files: one that is replaced in place never meets an older state."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    states = ((str(path), path.stat()) for path in files)
    return (*more, *((name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in states))


def with_all_threads(placement: Placement, config: ModelConfig) -> Placement:
    """Of an instance that shares its model: with the threads of all that do, since one that is
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

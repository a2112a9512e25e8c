"""Whether a model runs in a process of its own, and opening it there."""

import logging
import threading
from dataclasses import replace
from enum import Enum

from trivet.backends.api import About, Instance, InvalidConfig, ModelFiles, Placement
from trivet.backends.api.config import parameter, seconds
from trivet.backends.api.meters import MeterStore
from trivet.backends.process.instance import Limits, ProcessInstance
from trivet.backends.process.spawn import ChildProcess
from trivet.backends.process.task import Task, decode_config
from trivet.protos.model_config_pb2 import ModelConfig

_PARAMETER = "isolation"


class Isolation(Enum):
    """Where a model's code runs; the value is that of the config parameter `isolation`."""

    NONE = "none"
    """In the server: no copy, no border, and a crash is the server's."""
    PROCESS = "process"
    """In a child process for each instance."""


def isolation_of(config: ModelConfig, about: About) -> Isolation:
    """What the config's parameter `isolation` asks for, else what is usual for the backend's
    models. Raises InvalidConfig."""
    value = parameter(config, _PARAMETER) or about.usual_isolation
    try:
        return Isolation(value)
    except ValueError:
        raise InvalidConfig(
            f"model '{config.name}': parameter isolation is '{value}', "
            "but must be 'none' or 'process'"
        ) from None


def open_isolated(
    backend: str,
    config: ModelConfig,
    files: ModelFiles,
    placement: Placement,
    store: MeterStore | None = None,
    *,
    kind: type[ProcessInstance] = ProcessInstance,
) -> Instance:
    """Opens the instance with the backend of that word in a child process. Raises LoadFailed.

    The process is restarted by itself when it dies. Config parameters change the limits. `store`:
    for metrics that the model makes up; `kind`: where the server must know more of an instance.
    """
    task = Task(backend, _inside(config), files, placement, _log_level())
    return kind.open(task, _limits(config), store)


def complete_isolated(backend: str, config: ModelConfig, files: ModelFiles) -> ModelConfig:
    """What the backend's `complete` makes of the config, in a child process: user code runs there.

    Raises InvalidConfig, or LoadFailed when it takes longer than parameter `load_timeout_s`.
    """
    child = ChildProcess(Task(backend, _inside(config), files, None, _log_level()))
    try:
        answer = child.await_task(_limits(config).load_timeout_s, threading.Event())
    finally:
        child.release()
    completed = decode_config(answer["config"])
    return _with_isolation_of(config, completed)


def _inside(config: ModelConfig) -> ModelConfig:
    """The config for the child, in which the backend must not start another process."""
    inside = ModelConfig()
    inside.CopyFrom(config)
    inside.parameters[_PARAMETER].string_value = Isolation.NONE.value
    return inside


def _with_isolation_of(config: ModelConfig, completed: ModelConfig) -> ModelConfig:
    if _PARAMETER in config.parameters:
        completed.parameters[_PARAMETER].CopyFrom(config.parameters[_PARAMETER])
    else:
        del completed.parameters[_PARAMETER]
    return completed


def _limits(config: ModelConfig) -> Limits:
    """The fields of Limits that a model may change are parameters of the same names."""
    default = Limits()
    names = ("load_timeout_s", "close_timeout_s", "heartbeat_timeout_s", "execute_timeout_s")
    return replace(
        default, **{name: seconds(config, name, getattr(default, name)) for name in names}
    )


def _log_level() -> int:
    return logging.getLogger("trivet").getEffectiveLevel()

"""Runs any backend's instance in a child process: isolation wraps a backend, from outside."""

from trivet.backends.process.instance import Limits, ProcessInstance
from trivet.backends.process.isolation import (
    Isolation,
    complete_isolated,
    isolation_of,
    open_isolated,
)
from trivet.backends.process.task import Task

__all__ = [
    "Isolation",
    "Limits",
    "ProcessInstance",
    "Task",
    "complete_isolated",
    "isolation_of",
    "open_isolated",
]

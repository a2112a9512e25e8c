"""Runs any backend's instance in a child process: isolation wraps a backend, from outside."""

from trivet.backends.process.isolation import (
    Isolation,
    complete_isolated,
    isolation_of,
    open_isolated,
)

__all__ = ["Isolation", "complete_isolated", "isolation_of", "open_isolated"]

"""Who may call what over gRPC: the key in a call's metadata, and the scope of its row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from trivet.backends.api import ServingError
from trivet.server.auth.caller import NOBODY, Caller, current_caller
from trivet.server.auth.keyring import Keyring, secret_in
from trivet.server.auth.restricted import Restrictions
from trivet.server.auth.scopes import Scope
from trivet.server.grpc.errors import code_of
from trivet.server.grpc.transport import (
    Buffer,
    Call,
    Code,
    Gate,
    MessageHandler,
    Refused,
    Stream,
    Unary,
)

RESTRICTED_PREFIX = "triton-grpc-protocol-"
"""Of the metadata that restricted protocols ask for."""


class RestrictedGate:
    """Before another gate, or alone: asks for the metadata of restricted protocols."""

    def __init__(self, restrictions: Restrictions, inner: Gate | None) -> None:
        self._restrictions = restrictions
        self._inner = inner

    def admit(self, metadata: Mapping[str, str], row: Unary | Stream) -> Unary | Stream | Refused:
        """As the inner gate says, for calls that have what is asked for."""
        condition = self._restrictions.of(row.api)
        if condition is not None and not condition.holds(metadata.get):
            # Triton's code for it.
            text = f"This protocol is restricted, expecting header '{condition.header}'"
            return Refused(Code.UNAVAILABLE, text)
        return row if self._inner is None else self._inner.admit(metadata, row)


class KeyGate:
    """A transport's gate. Owned by the event loop."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def admit(self, metadata: Mapping[str, str], row: Unary | Stream) -> Unary | Stream | Refused:
        """The row, run in the caller's name."""
        if row.scope is Scope.OPEN:
            return _as(NOBODY, row)
        secret = secret_in(metadata.get("authorization"), metadata.get("x-api-key"))
        try:
            if isinstance(row, Unary):
                return _as(self._keyring.admit(secret, row.scope), row)
            # The requests of a stream are counted one by one.
            return _as(self._keyring.allowed(secret, row.scope).of_stream(), row)
        except ServingError as error:
            return Refused(code_of(error), error.message)


def _as(caller: Caller, row: Unary | Stream) -> Unary | Stream:
    if isinstance(row, Unary):
        handle = row.handle
        return Unary(
            lambda call, message: _run(caller, lambda: handle(call, message)), row.scope, row.api
        )
    return Stream(lambda call: _open(caller, row, call), row.scope, row.api)


def _run(caller: Caller, work: Callable[[], None]) -> None:
    before = current_caller.set(caller)
    try:
        work()
    finally:
        current_caller.reset(before)


def _open(caller: Caller, row: Stream, call: Call) -> MessageHandler:
    before = current_caller.set(caller)
    try:
        return _CallersStream(caller, row.open(call))
    finally:
        current_caller.reset(before)


@dataclass(slots=True)
class _CallersStream:
    """Every message of a stream is the caller's."""

    caller: Caller
    handler: MessageHandler

    def on_message(self, message: Buffer) -> None:
        _run(self.caller, lambda: self.handler.on_message(message))

    def on_half_close(self) -> None:
        _run(self.caller, self.handler.on_half_close)

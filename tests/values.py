"""Makes values refuse to be written to, as the type checker believes that they do."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from trivet.backends.api import CheckedRequest, InferRequest, RequestContext

KINDS = (InferRequest, RequestContext, CheckedRequest)


@contextmanager
def frozen_values() -> Iterator[None]:
    """Whoever writes to a request that has been made fails."""

    def refuse(self: object, name: str, value: object) -> None:
        writer = sys._getframe(1).f_code
        if writer.co_name != "__init__":
            where = f"{writer.co_filename}:{writer.co_name}"
            raise AttributeError(f"{where} writes to '{name}' of a {type(self).__name__}")
        object.__setattr__(self, name, value)

    with pytest.MonkeyPatch.context() as patch:
        for kind in KINDS:
            patch.setattr(kind, "__setattr__", refuse)
        yield

"""A generator whose tokens are paid by one caller."""

from trivet.backends.api import GenerateRequest, GenerateSink, Generator
from trivet.backends.api.delegating import DelegatingGenerator
from trivet.server.auth.errors import RateLimited
from trivet.server.auth.limits import Allowance


class MeteredGenerator(DelegatingGenerator):
    """A Generator. Refuses while the caller's earlier tokens are not paid off."""

    def __init__(self, inner: Generator, allowance: Allowance) -> None:
        super().__init__(inner)
        self._allowance = allowance

    def generate(self, request: GenerateRequest, sink: GenerateSink) -> None:
        """Never blocks and never raises."""
        try:
            self._allowance.require_tokens()
        except RateLimited as error:
            sink.fail(error)
            return
        request.on_tokens = self._allowance.charge_tokens
        self._inner.generate(request, sink)

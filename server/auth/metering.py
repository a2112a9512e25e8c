"""Generators as one caller has them: its tokens are counted, its prompts are its own."""

from dataclasses import replace

from trivet.backends.api import Account, GenerateRequest, GenerateSink, Generator
from trivet.backends.api.delegating import DelegatingGenerator
from trivet.server.auth.errors import RateLimited
from trivet.server.auth.limits import Allowance


class TenantsGenerator(DelegatingGenerator):
    """A Generator whose cached prefixes no other tenant shares: how soon an answer begins would
    tell what others have asked."""

    def __init__(self, inner: Generator, tenant: str) -> None:
        super().__init__(inner)
        self._tenant = tenant

    def generate(self, request: GenerateRequest, sink: GenerateSink) -> None:
        """Never blocks and never raises."""
        # A tenant's name has no blank, so that no salt of a client's makes it another's.
        salt = request.cache_salt
        request.cache_salt = f"{self._tenant} {salt}" if salt else self._tenant
        self._inner.generate(request, sink)

    def _pays(self, account: Account) -> Account:
        return replace(account, tenant=self._tenant)


class MeteredGenerator(DelegatingGenerator):
    """A Generator, asked on behalf of one client's request. Refuses it while the caller's earlier
    tokens are not paid off; once it is let in, its own may overdraw."""

    def __init__(self, inner: Generator, allowance: Allowance) -> None:
        super().__init__(inner)
        self._allowance = allowance
        self._is_let_in = False

    def generate(self, request: GenerateRequest, sink: GenerateSink) -> None:
        """Never blocks and never raises."""
        try:
            self._let_in()
        except RateLimited as error:
            sink.fail(error)
            return
        request.on_tokens = self._allowance.charge_tokens
        self._inner.generate(request, sink)

    def _pays(self, account: Account) -> Account:
        if self.info.is_ensemble:  # Others make prompts without a token.
            self._let_in()
        return replace(account, on_tokens=self._allowance.charge_tokens)

    def _let_in(self) -> None:
        """Raises RateLimited. Steps that have made the prompt are no reason to refuse the rest."""
        if not self._is_let_in:
            self._allowance.require_tokens()
            self._is_let_in = True

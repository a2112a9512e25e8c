"""The hall where time has a price: every request is charged to whoever sent it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from trivet.backends.api import (
    AsksAnother,
    Client,
    GenerateRequest,
    GenerateSink,
    Generator,
    InferRequest,
    RequestContext,
    ServingError,
    Sink,
    Trace,
)
from trivet.backends.api.adapting import SEPARATOR
from trivet.backends.api.delegating import DelegatingGenerator
from trivet.backends.api.value import changed
from trivet.server.auth.caller import Caller, current_caller
from trivet.server.cost.ledger import Account, Ledger, day_left_s
from trivet.server.cost.prices import Prices
from trivet.server.cost.shared_clock import SharedClock
from trivet.server.cost.spending import (
    EndingGenerateSink,
    EndingSink,
    EngineShare,
    Spending,
    SpendingTrace,
)
from trivet.server.hall import Hall
from trivet.server.models.routing import NOBODY, Admitted, Key


class PricedHall(Hall):
    """A `Core` that charges. Owned by the event loop."""

    def __init__(
        self,
        *place: Any,
        prices: Prices,
        ledger: Ledger,
        clock: Callable[[], float] = time.monotonic,
        **options: Any,
    ) -> None:
        """`place` and `options`: see Hall."""
        super().__init__(*place, **options)
        self._prices = prices
        self.ledger = ledger
        self._clock = clock
        self._clocks: dict[str, SharedClock] = {}
        """By engine."""

    def resolve(
        self, name: str, version: int | str | None, key: Key = "", asker: Client = NOBODY
    ) -> Admitted:
        """See Core. What answers say of it has room for the cost, which is known at the end."""
        admitted = super().resolve(name, version, key, asker)
        return replace(admitted, told=dict(admitted.told))

    def infer(
        self, admitted: Admitted, request: InferRequest, context: RequestContext, sink: Sink
    ) -> None:
        """See Core."""
        told = admitted.told
        assert isinstance(told, dict), "it was resolved here"
        try:
            spending = self._spending(admitted, told)
        except ServingError as error:
            sink.fail(error)
            return
        context = changed(context, trace=SpendingTrace(spending, self, context.trace))
        super().infer(admitted, request, context, EndingSink(sink, spending.end))

    def _part(self, context: RequestContext, part: Trace) -> Trace:
        spending = context.trace
        return spending.beside(part) if isinstance(spending, SpendingTrace) else part

    def generator(
        self,
        name: str,
        version: int | str | None = None,
        key: Key = "",
        asker: Client = NOBODY,
    ) -> tuple[Generator, Mapping[str, str]]:
        """See Core."""
        admitted = self._find_generator(name, version, key, asker)
        told = dict(admitted.told)
        inner = self._generator_of(admitted, key, asker)
        return PricedGenerator(inner, self, admitted, told), told

    def begin(self, admitted: Admitted, told: dict[str, str]) -> tuple[Spending, EngineShare]:
        """A request to a model that generates text. Raises RateLimited."""
        spending = self._spending(admitted, told)
        name, version = admitted.name, admitted.version
        clock = self.clock_of(name, version) or self._clock_named(name)
        return spending, EngineShare(clock, spending, self.per_second(name, version))

    def _spending(self, admitted: Admitted, told: dict[str, str]) -> Spending:
        """Raises RateLimited where a budget is used up."""
        caller: Caller | None = current_caller.get()
        key = "" if caller is None else caller.key.name
        account = Account(admitted.model.key, admitted.version, key)
        allowance = None if caller is None else caller.allowance
        if allowance is not None and allowance.limits.cost_per_day:
            allowance.require_budget(self.ledger.spent_today(key), day_left_s())
        return Spending(account, self.ledger, told)

    # -- Pricing -------------------------------------------------------------------------------

    def per_second(self, name: str, version: int | str | None) -> float:
        """See Pricing."""
        try:
            model = self._described(name, version).model
        except ServingError:
            return self._prices.machine_hour / 3600
        return self._prices.per_second(model.name, model.config)

    def clock_of(self, name: str, version: int | str | None) -> SharedClock | None:
        """See Pricing."""
        try:
            executor = self._described(name, version).model.executor
            if isinstance(executor, AsksAnother):
                # Not its `info`: to ask for that is a request's turn among the versions it asks.
                return self._clock_named(executor.engine) if executor.engine else None
            if not isinstance(executor, Generator):
                return None
            return self._clock_named(executor.info.parent or name)
        except ServingError:
            return None

    def _clock_named(self, name: str) -> SharedClock:
        base = name.rpartition(SEPARATOR)[0] or name.partition("@")[0]
        clock = self._clocks.get(base)
        if clock is None:
            clock = self._clocks[base] = SharedClock(self._clock)
        return clock


class PricedGenerator(DelegatingGenerator):
    """A Generator, asked on behalf of one client's request: what it takes is charged."""

    def __init__(
        self, inner: Generator, hall: PricedHall, admitted: Admitted, told: dict[str, str]
    ) -> None:
        super().__init__(inner)
        self._hall = hall
        self._admitted = admitted
        self._told = told

    def generate(self, request: GenerateRequest, sink: GenerateSink) -> None:
        """Never blocks and never raises."""
        try:
            spending, share = self._hall.begin(self._admitted, self._told)
        except ServingError as error:
            sink.fail(error)
            return

        def end() -> None:
            share.end()
            spending.end()

        self._inner.generate(request, EndingGenerateSink(sink, end))

"""All of it together, as the options say."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from trivet.server.cost.bookkeeping import Bookkeeping
from trivet.server.cost.hall import PricedHall
from trivet.server.cost.ledger import COSTS, Ledger
from trivet.server.cost.prices import read_prices
from trivet.server.hall import Hall
from trivet.server.settings import Settings


class CostRoom:
    """Owned by the event loop. Without `--prices` it has no ledger, and does nothing."""

    def __init__(self, settings: Settings) -> None:
        """Raises InvalidConfig."""
        self.ledger: Ledger | None = None
        self.make_hall: Callable[..., Hall] = Hall
        """What makes the hall: one that charges where there are prices."""
        if settings.prices:
            prices = read_prices(Path(settings.prices))
            ledger = self.ledger = Ledger(
                Path(settings.state_dir).expanduser() / COSTS,
                hears_folder=not settings.limits_redis,
            )
            self.make_hall = partial(PricedHall, prices=prices, ledger=ledger)
        self._books = None if self.ledger is None else Bookkeeping(self.ledger)

    def tell(self, on_spent: Callable[[str, int, float], None]) -> None:
        """Who hears of each request: the model's key, its version, the cost."""
        if self.ledger is not None:
            self.ledger.on_spent = lambda account, cost: on_spent(*account[:2], cost)

    def start(self) -> None:
        """Begins to write costs down."""
        if self._books is not None:
            self._books.start()

    async def close(self) -> None:
        """Writes what is new."""
        if self._books is not None:
            await self._books.close()

"""Who has spent how much, on which version of which model and on which day."""

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

from trivet.server.evaluation.history import write_whole

log = logging.getLogger(__name__)
COSTS = "costs"
"""In the server's state folder: a file a day."""


class Account(NamedTuple):
    """What costs are told by."""

    model: str
    """What the server knows it by: its name, behind its repository where these are namespaces."""
    version: int
    key: str
    """Its name; empty on servers without keys."""


@dataclass(slots=True)
class Spent:
    """What has come together."""

    requests: int = 0
    compute_s: float = 0.0
    cost: float = 0.0

    def add(self, compute_s: float, cost: float, requests: int = 1) -> None:
        """One more request."""
        self.requests += requests
        self.compute_s += compute_s
        self.cost += cost


Accounts = dict[Account, Spent]
Rows = Sequence[Mapping[str, Any]]


def today() -> date:
    """By UTC: the same for all replicas."""
    return datetime.now(UTC).date()


class Ledger:
    """All accounts: since the start, for the metrics, and of the day, for the files. Owned by the
    event loop, but for `put`."""

    def __init__(self, folder: Path, today: Callable[[], date] = today) -> None:
        """`folder` may not be there yet. A day that began before the server goes on."""
        self._folder = folder
        self._today = today
        self.accounts: Accounts = {}
        self.on_spent: Callable[[Account, float], None] = lambda _account, _cost: None
        """Told of each request: who compares versions by what they cost."""
        self._day = today()
        self._of_day = _read(self._path(self._day))
        self._ended: dict[date, Accounts] = {}
        """Days that are over and not written down yet."""
        self._has_news = False
        self._writing = threading.Lock()

    def add(self, account: Account, compute_s: float, cost: float) -> None:
        """A request has ended."""
        day = self._today()
        if day != self._day:
            self._ended[self._day] = self._of_day
            known = self._ended.pop(day, None)
            self._day, self._of_day = day, _read(self._path(day)) if known is None else known
        for accounts in (self.accounts, self._of_day):
            spent = accounts.get(account)
            if spent is None:
                spent = accounts[account] = Spent()
            spent.add(compute_s, cost)
        self._has_news = True
        self.on_spent(account, cost)

    def of_version(self, model: str, version: int) -> Spent:
        """What a version's requests cost, whoever sent them, since the start."""
        total = Spent()
        for account, spent in self.accounts.items():
            if account[:2] == (model, version):
                total.add(spent.compute_s, spent.cost, spent.requests)
        return total

    def write(self) -> None:
        """Writes all of it. What cannot be written is told, and tried again. Blocking."""
        self._has_news = True  # what somebody has taken may not have been written
        self.put(self.take())

    def take(self) -> Mapping[date, Rows]:
        """What is to be written if there is anything new, by day: by whoever takes it."""
        if not self._has_news:
            return {}
        self._has_news = False
        days = {**self._ended, self._day: self._of_day}
        return {day: [_row(*each) for each in sorted(of.items())] for day, of in days.items() if of}

    def put(self, taken: Mapping[date, Rows]) -> None:
        """Writes it. In any thread, for it waits for the disk."""
        with self._writing:
            for day, rows in taken.items():
                try:
                    self._folder.mkdir(parents=True, exist_ok=True)
                    write_whole(self._path(day), json.dumps(rows))
                except OSError as error:
                    log.warning("what requests cost cannot be written down: %s", error)
                    self._has_news = True
                    return
                if day != self._day:
                    self._ended.pop(day, None)

    def _path(self, day: date) -> Path:
        return self._folder / f"{day.isoformat()}.json"


def days(folder: Path) -> Iterator[tuple[str, Accounts]]:
    """What files have, the oldest first."""
    for path in sorted(folder.glob("????-??-??.json")):
        yield path.stem, _read(path)


def _row(account: Account, spent: Spent) -> Mapping[str, Any]:
    return {
        **account._asdict(),
        "requests": spent.requests,
        "compute_s": spent.compute_s,
        "cost": spent.cost,
    }


def _read(path: Path) -> Accounts:
    """Of a day; nothing where it cannot be read."""
    found: Accounts = {}
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        for row in rows:
            account = Account(str(row["model"]), int(row["version"]), str(row["key"]))
            found[account] = Spent(
                int(row["requests"]), float(row["compute_s"]), float(row["cost"])
            )
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s is passed over: %s", path.name, error)
    return found

"""Who has spent how much, on which version of which model and on which day."""

import fcntl
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from trivet.server.evaluation.writing import write_whole

log = logging.getLogger(__name__)
DAY_S = 86_400.0
COSTS = "costs"
"""In the server's state folder: a file a day, of each server that shares the folder."""


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


def day_left_s() -> float:
    """Until that is over."""
    now = datetime.now(UTC)
    return DAY_S - (now.hour * 3600 + now.minute * 60 + now.second)


class Place:
    """Which of the files of a day are one server's: those with the lowest number that no other
    one of the folder has now. What the server before it wrote there goes on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._lock: int | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            while not self._is_taken():
                self._number += 1
        except OSError as error:
            log.warning("servers that share %s would overwrite each other: %s", folder, error)

    def _is_taken(self) -> bool:
        path = self._folder / f"server-{self._number}.lock"
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def path(self, day: date) -> Path:
        """Its own file of a day."""
        number = f".{self._number}" if self._number else ""
        return self._folder / f"{day.isoformat()}{number}.json"

    def others(self, day: date) -> Iterator[Path]:
        """Those of the other servers."""
        own = self.path(day)
        return (path for path in self._folder.glob(f"{day.isoformat()}*.json") if path != own)

    def close(self) -> None:
        """Another server may have it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class Ledger:
    """All accounts: since the start, for the metrics, and of the day, for the files. Owned by the
    event loop, but for `put`."""

    def __init__(
        self, folder: Path, today: Callable[[], date] = today, *, hears_folder: bool = True
    ) -> None:
        """`folder` may not be there yet. A day that began before the server goes on.
        `hears_folder`: what others have spent is read there, and not added from elsewhere."""
        self._folder = folder
        self._hears_folder = hears_folder
        self._place = Place(folder)
        self._today = today
        self.accounts: Accounts = {}
        self.on_spent: Callable[[Account, float], None] = lambda _account, _cost: None
        """Told of each request: who compares versions by what they cost."""
        self._day = today()
        self._of_day = _read(self._place.path(self._day))
        self._by_key = by_key(self._of_day)
        self._of_others: Mapping[str, float] = {}
        """What the day has cost each key at the folder's other servers, as far as they wrote."""
        self._ended: dict[date, Accounts] = {}
        """Days that are over and not written down yet."""
        self._has_news = False
        self._writing = threading.Lock()
        self.hear_others()

    def add(self, account: Account, compute_s: float, cost: float) -> None:
        """A request has ended."""
        day = self._today()
        if day != self._day:
            self._ended[self._day] = self._of_day
            known = self._ended.pop(day, None)
            self._day = day
            self._of_day = _read(self._place.path(day)) if known is None else known
            self._by_key, self._of_others = by_key(self._of_day), {}
        for accounts in (self.accounts, self._of_day):
            spent = accounts.get(account)
            if spent is None:
                spent = accounts[account] = Spent()
            spent.add(compute_s, cost)
        self._by_key[account.key] = self._by_key.get(account.key, 0.0) + cost
        self._has_news = True
        self.on_spent(account, cost)

    def spent_today(self, key: str) -> float:
        """What a key's requests cost since the day began, at all servers of the folder."""
        if self._today() != self._day:
            return 0.0
        return self._by_key.get(key, 0.0) + self._of_others.get(key, 0.0)

    def own_today(self, key: str) -> float:
        """The same, at this server."""
        return self._by_key.get(key, 0.0) if self._today() == self._day else 0.0

    def add_for_others(self, key: str, cost: float) -> None:
        """What it has cost at other servers, which say so otherwise than by the folder."""
        self._of_others = {**self._of_others, key: self._of_others.get(key, 0.0) + cost}

    def hear_others(self) -> None:
        """Reads what the folder's other servers have written. Blocking."""
        if not self._hears_folder:
            return
        day, found = self._day, dict[str, float]()
        for path in self._place.others(day):
            for key, cost in by_key(_read(path)).items():
                found[key] = found.get(key, 0.0) + cost
        if day == self._day:  # else a new one has begun meanwhile, in a thread's own time
            self._of_others = found

    def close(self) -> None:
        """Another server may go on with its files."""
        self._place.close()

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
                    write_whole(self._place.path(day), json.dumps(rows))
                except OSError as error:
                    log.warning("what requests cost cannot be written down: %s", error)
                    self._has_news = True
                    return
                if day != self._day:
                    self._ended.pop(day, None)


def by_key(accounts: Accounts) -> dict[str, float]:
    """What each key's requests cost."""
    found: dict[str, float] = {}
    for account, spent in accounts.items():
        found[account.key] = found.get(account.key, 0.0) + spent.cost
    return found


def days(folder: Path) -> Iterator[tuple[str, Accounts]]:
    """What files have, the oldest first: each day once, of all servers."""
    paths = sorted(folder.glob("????-??-??*.json"))
    for day, of_day in groupby(paths, key=lambda path: path.name.partition(".")[0]):
        accounts: Accounts = {}
        for path in of_day:
            for account, spent in _read(path).items():
                known = accounts.setdefault(account, Spent())
                known.add(spent.compute_s, spent.cost, spent.requests)
        yield day, accounts


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

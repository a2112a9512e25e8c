"""What is known of the roll-outs of all models: it comes of the journal's records alone, so that it
is the same after a restart, and in every server that reads them."""

import hashlib
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from trivet.backends.api import ServingError
from trivet.server.models.traffic import parse_document
from trivet.server.repository.layout import Fingerprint
from trivet.server.rollouts.journal import Record
from trivet.server.rollouts.machine import Phase, Rollout
from trivet.server.rollouts.policy import parse_policy

MOST_HISTORY = 1000
"""Records of one model that are shown."""
MOST_SEEN = 10_000
"""Records that are known by their numbers: far more than ever wait to be read back."""


class Event(StrEnum):
    """What a record tells."""

    ADOPTED = "adopted"
    """A version got all the traffic without a roll-out: nothing served before."""
    STARTED = "started"
    BEGAN = "began"
    STEPPED = "stepped"
    PROGRESS = "progress"
    """How far it is; not worth a line of its history."""
    PAUSED = "paused"
    RESUMED = "resumed"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled back"
    ABORTED = "aborted"
    KNOWN = "known"
    """What had come of records that are not kept; not worth a line, either."""
    TRAFFIC = "traffic"
    """Labels and split were set, or unset, by somebody."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A version that is not tried again until its files change."""

    files: str
    reason: str


@dataclass(slots=True)
class Entry:
    """What is known of one model."""

    stable: int | None = None
    """None: it never served."""
    refused: dict[int, Refused] = field(default_factory=dict)
    rollout: Rollout | None = None
    """The one that goes on, or the last one."""
    files: str = ""
    """Of its candidate."""
    traffic: Mapping[str, Any] | None = None
    """What somebody has set in the place of the file."""
    verdicts: Counter[Phase] = field(default_factory=Counter)
    """How many of its roll-outs have ended so."""
    history: deque[Record] = field(default_factory=lambda: deque(maxlen=MOST_HISTORY))

    @property
    def running(self) -> Rollout | None:
        """The one that goes on."""
        rollout = self.rollout
        return rollout if rollout is not None and not rollout.is_ended else None

    def known(self) -> dict[str, Any]:
        """What is known where no roll-out goes on, as JSON has it."""
        return {
            "stable": self.stable,
            "traffic": self.traffic,
            "verdicts": {phase.value: count for phase, count in self.verdicts.items()},
            "refused": {str(each): [r.files, r.reason] for each, r in self.refused.items()},
        }

    def take_known(self, known: Mapping[str, Any]) -> None:
        """The other way. Raises KeyError, TypeError, ValueError, InvalidConfig."""
        refused = {int(each): Refused(*map(str, told)) for each, told in known["refused"].items()}
        verdicts = Counter({Phase(each): int(n) for each, n in known["verdicts"].items()})
        if known["traffic"] is not None:
            parse_document(known["traffic"])
        stable = None if known["stable"] is None else int(known["stable"])
        self.stable, self.traffic = stable, known["traffic"]
        self.refused, self.verdicts = refused, verdicts

    def settle(self) -> None:
        """The roll-out has ended: its candidate is stable, or refused."""
        rollout = self.rollout
        assert rollout is not None, "one has been started"
        self.verdicts[rollout.phase] += 1
        if rollout.phase is Phase.PROMOTED:
            self.stable = rollout.candidate
        else:
            self.refused[rollout.candidate] = Refused(self.files, told(rollout))


class Book:
    """Entries by the models' keys. Owned by the event loop."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._seen: dict[str, None] = {}
        """The last records' numbers, in order."""

    @property
    def entries(self) -> Mapping[str, Entry]:
        """All of them."""
        return self._entries

    def of(self, key: str) -> Entry:
        """A model's; an empty one if nothing is known."""
        return self._entries.setdefault(key, Entry())

    def apply(self, record: Record) -> bool:
        """Somebody has written this; whether it is news, and was possible."""
        if not is_whole(record) or record["n"] in self._seen:
            return False
        try:
            self.perform(record)
        except (KeyError, TypeError, ValueError, ServingError):
            # Of another release, or one that came too late for another's.
            return False
        return True

    def perform(self, record: Record) -> None:
        """Something happens. Raises KeyError, TypeError, ValueError or a ServingError for what
        cannot."""
        _apply(self.of(str(record["model"])), Event(record["event"]), record)
        self.note(record)

    def note(self, record: Record) -> None:
        """Something has happened already."""
        self._seen[record["n"]] = None
        if len(self._seen) > MOST_SEEN:
            del self._seen[next(iter(self._seen))]
        if record["event"] not in (Event.PROGRESS, Event.KNOWN):
            self.of(str(record["model"])).history.append(record)


def is_whole(record: Record) -> bool:
    """Whether it says what each record does: its number, whose it is and what has happened."""
    return all(isinstance(record.get(each), str) for each in ("n", "model", "event"))


def _apply(entry: Entry, event: Event, record: Record) -> None:
    """Raises KeyError, TypeError, ValueError or a ServingError for what cannot be."""
    if event is Event.TRAFFIC:
        if record["traffic"] is not None:
            parse_document(record["traffic"])
        entry.traffic = record["traffic"]
    elif event is Event.KNOWN:
        entry.take_known(record["known"])
    elif event is Event.ADOPTED:
        entry.stable = int(record["version"])
    elif event is Event.STARTED:
        policy = parse_policy(record["policy"])
        if entry.running is not None:
            raise ValueError("two roll-outs of one model")
        entry.stable, candidate = int(record["stable"]), int(record["candidate"])
        entry.rollout = Rollout(policy, entry.stable, candidate)
        entry.files = str(record["files"])
        entry.refused.pop(candidate, None)
    else:
        rollout = entry.running
        if rollout is None or rollout.candidate != record["candidate"]:
            raise ValueError("no such roll-out goes on")
        _go_on(rollout, event, record)
        if rollout.is_ended:
            entry.settle()


def _go_on(rollout: Rollout, event: Event, record: Record) -> None:
    if event is Event.BEGAN:
        rollout.begin()
    elif event is Event.STEPPED:
        step = int(record["step"])
        if not 0 <= step < len(rollout.policy.steps):
            raise ValueError(f"there is no step {step}")
        rollout.step_to(step)
    elif event is Event.PROGRESS:
        rollout.restore(record["saved"])
    elif event is Event.PAUSED:
        rollout.pause()
    elif event is Event.RESUMED:
        rollout.resume()
    elif event is Event.PROMOTED:
        # Whether it could be has been looked at where it was decided.
        rollout.inherit(str(record["reason"]))
    elif event is Event.ROLLED_BACK:
        rollout.fail(str(record["reason"]))
    elif event is Event.ABORTED:
        rollout.abort(str(record["reason"]))


def told(rollout: Rollout) -> str:
    """What is said of its candidate once it has ended."""
    return f"{rollout.phase}: {rollout.reason}"


def digest_of(files: Fingerprint) -> str:
    """What tells a version's files from others: their names, sizes and times."""
    told_of = sorted(stamp[:3] for stamp in files)
    return hashlib.sha256(repr(told_of).encode("utf-8", "surrogatepass")).hexdigest()[:32]

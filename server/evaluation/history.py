"""What evaluations leave behind: reports, which cases ever passed, what judges said. A folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from trivet.server.evaluation.judge import VoteCache
from trivet.server.evaluation.report import Outcome, Report
from trivet.server.evaluation.writing import write_whole

_MAX_REPORTS = 50
"""Of a model: older ones go, but for the last one of each version's files."""
_MAX_NEEDED = 500


class History:
    """The folder. Files are replaced as a whole, so that one that was cut is never read."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError where it cannot be made."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def votes(self) -> VoteCache:
        """What judges have said."""
        return VoteCache(self._folder / "votes.jsonl")

    def reports(self, model: str) -> list[Report]:
        """Of a model, the oldest first; what is none is passed over."""
        found = []
        for path in sorted(self._of(model).glob("*.json")):
            try:
                found.append(Report.of_json(json.loads(path.read_text(encoding="utf-8"))))
            except (OSError, ValueError):
                continue
        return found

    def before(self, report: Report) -> Report | None:
        """The last one of another version, or of other files."""
        others = [
            each
            for each in self.reports(report.model)
            if (each.version, each.digest) != (report.version, report.digest)
        ]
        return others[-1] if others else None

    def with_digest(self, model: str, digest: str) -> Report | None:
        """The last one of exactly these files."""
        return self.by_digest(model).get(digest)

    def by_digest(self, model: str) -> dict[str, Report]:
        """The last one of each version's files."""
        return {each.digest: each for each in self.reports(model) if each.digest}

    def ever_passed(self, model: str) -> set[str]:
        """The digests of cases that have passed once."""
        try:
            kept = json.loads(self._passed(model).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return set()
        return set(kept) if isinstance(kept, list) else set()

    def add(self, report: Report) -> None:
        """Keeps a report. Raises OSError."""
        folder = self._of(report.model)
        folder.mkdir(parents=True, exist_ok=True)
        passed = self.ever_passed(report.model)
        passed |= {case.digest for case in report.cases if case.outcome is Outcome.PASSED}
        write_whole(self._passed(report.model), json.dumps(sorted(passed)))
        name = f"{report.started_at.replace(':', '')}-{report.version}.json"
        write_whole(folder / name, json.dumps(report.to_json()))
        for old in _dispensable(sorted(folder.glob("*.json"))):
            old.unlink(missing_ok=True)

    def _of(self, model: str) -> Path:
        return self._folder / "reports" / quote(model, safe="")

    def _passed(self, model: str) -> Path:
        return self._folder / f"passed-{quote(model, safe='')}.json"


def _dispensable(paths: Sequence[Path]) -> Sequence[Path]:
    """The reports that go, the oldest first. Those that a gate may ask for stay longer: without its
    report a version that serves would be a candidate after the next restart."""
    num_over = len(paths) - _MAX_REPORTS
    if num_over <= 0:
        return ()
    last = {_digest_in(path): path for path in paths}
    needed = {path for digest, path in last.items() if digest}
    others = [path for path in paths if path not in needed]
    return (*others[:num_over], *sorted(needed)[:-_MAX_NEEDED])


def _digest_in(path: Path) -> str:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""

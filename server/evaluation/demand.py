"""What a model's gate asks of its versions, and what is known of them: read from disk, in a
thread."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from trivet.backends.api import InvalidConfig
from trivet.server.evaluation.config import EvaluationConfig, read_config
from trivet.server.evaluation.digest import Digests
from trivet.server.evaluation.faults import SetFault
from trivet.server.evaluation.history import History
from trivet.server.repository.layout import ModelFolder

EVALUATIONS = "evaluations"
"""In the server's state folder."""


@dataclass(frozen=True, slots=True)
class Demand:
    """A gate that is required."""

    config: EvaluationConfig
    folder: Path
    """The model's."""
    digests: Mapping[int, str]
    """By version, whether it is to serve or not."""
    faults: Mapping[int, str]
    """Of versions with a report for exactly these files: why it has not passed; empty: it has."""

    def has_passed(self, version: int) -> bool:
        """Whether there is a report that says so."""
        return self.faults.get(version) == ""


class Demands:
    """Reads them. Any thread may ask."""

    def __init__(self, state_dir: Path) -> None:
        self.history_dir = state_dir / EVALUATIONS
        self._digests = Digests()

    def of(self, folder: ModelFolder, versions: Iterable[int]) -> Demand | None:
        """None where versions need no report. Raises InvalidConfig, OSError."""
        if not folder.evaluation:
            return None
        try:
            config = read_config(folder.path)
        except SetFault as fault:
            raise InvalidConfig(str(fault)) from None
        if not config.is_required:
            return None
        history = History(self.history_dir)
        digests = {version: self._digests.of(folder, version) for version in versions}
        reports = history.by_digest(folder.name)
        faults = {
            version: "; ".join(reports[digest].faults)
            for version, digest in digests.items()
            if digest in reports
        }
        return Demand(config, folder.path, digests, faults)

"""The counters of every version that was ever ready; they go on over reloads. Owned by the loop."""

from trivet.server.models.load_plan import LoadPlan
from trivet.server.scheduling.statistics import ModelStatistics


class Counted:
    """By the models' keys and versions."""

    def __init__(self, *, has_summaries: bool) -> None:
        """`has_summaries`: whether they keep quantiles, too."""
        self._has_summaries = has_summaries
        self._statistics: dict[tuple[str, int], ModelStatistics] = {}

    def all(self) -> list[ModelStatistics]:
        """Of all of them."""
        return list(self._statistics.values())

    def of(self, plan: LoadPlan, version: int) -> ModelStatistics:
        """Those that a version had before, or new ones."""
        key, folder = (plan.folder.key, version), plan.folder
        statistics = self._statistics.get(key)
        if statistics is None:
            statistics = self._statistics[key] = ModelStatistics(
                folder.name,
                version,
                namespace=folder.namespace,
                has_summaries=self._has_summaries,
            )
        return statistics

    def freed(self, key: str, version: int) -> None:
        """The version takes no memory any more."""
        self._statistics[key, version].takes(0, {})

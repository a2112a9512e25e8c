"""One number that several servers add to, as one of them sees it. Pure.

The sum of all lies in a store. A server says what it has added since it last did, and how much it
knows the sum to be at least: a store that has forgotten learns it again from whoever comes first.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class News:
    """What is said to the store."""

    added: float
    known: float


@dataclass(slots=True)
class Total:
    """Owned by the task that exchanges."""

    told: float = 0.0
    """Of what this server has added, as much as the store has been told."""
    known: float = 0.0
    """The sum, when it was heard last."""
    is_heard: bool = False

    def news(self, own: float) -> News:
        """`own`: all that this server has added; less than before where a day has begun anew."""
        if own < self.told:
            self.told = 0.0
        return News(own - self.told, self.known)

    def hear(self, news: News, total: float) -> float:
        """The store's sum after the news. Returns what others have added since this was heard
        before: all of theirs the first time."""
        by_others = max(0.0, total - self.known - news.added)
        self.told += news.added
        self.known = total
        self.is_heard = True
        return by_others

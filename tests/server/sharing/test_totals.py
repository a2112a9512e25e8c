"""Sums of several servers, as one of them sees them."""

from trivet.server.sharing.totals import News, Total


class Store:
    """As Redis adds: to what it has, or to the most that it is told it had."""

    def __init__(self) -> None:
        self.sum = 0.0

    def exchange(self, total: Total, own: float) -> float:
        news = total.news(own)
        self.sum = max(self.sum, news.known) + news.added
        return total.hear(news, self.sum)


def test_each_hears_what_the_others_have_added() -> None:
    store, one, two = Store(), Total(), Total()

    assert store.exchange(one, 5) == 0
    assert store.exchange(two, 2) == 5
    assert store.exchange(one, 6) == 2
    assert store.exchange(two, 2) == 1
    assert store.sum == 8


def test_what_is_heard_once_is_not_heard_again() -> None:
    store, one, two = Store(), Total(), Total()
    store.exchange(one, 5)
    store.exchange(two, 0)

    assert store.exchange(two, 0) == 0


def test_a_store_that_has_forgotten_learns_it_again() -> None:
    store, one, two = Store(), Total(), Total()
    store.exchange(one, 5)
    store.exchange(two, 2)
    store.exchange(one, 5)
    store.sum = 0

    assert store.exchange(two, 3) == 0
    assert store.sum == 8
    assert store.exchange(one, 5) == 1


def test_what_was_not_taken_is_said_again() -> None:
    total = Total()

    assert total.news(3) == News(3, 0)
    assert total.news(4) == News(4, 0)


def test_a_day_that_begins_anew_is_added_from_nothing() -> None:
    total = Total()
    total.hear(total.news(3), 3)

    assert total.news(1).added == 1

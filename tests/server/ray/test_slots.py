"""Which replica has which server of the proxy."""

from trivet.server.ray.slots import FORGOTTEN_S, Replica, Slots


def replica(name: str) -> Replica:
    return Replica(name, "10.0.0.1", 1000, 1001)


def test_a_replica_keeps_its_server_while_it_is_heard() -> None:
    slots = Slots(2)

    assert slots.hear(replica("a"), 0) == 0
    assert slots.hear(replica("b"), 0) == 1
    assert slots.hear(replica("a"), FORGOTTEN_S) is None
    assert slots.forget(FORGOTTEN_S + 1) == [1]
    assert slots.replicas == (replica("a"), None)


def test_a_replica_that_has_ended_is_out_at_once() -> None:
    slots = Slots(2)
    slots.hear(replica("a"), 0)
    slots.hear(replica("b"), 0)

    assert slots.release("a") == [0]
    assert slots.release("a") == []
    assert slots.hear(replica("c"), 1) == 0


def test_without_room_the_one_that_was_silent_for_longest_goes() -> None:
    slots = Slots(2)
    slots.hear(replica("a"), 0)
    slots.hear(replica("b"), 0)
    slots.hear(replica("a"), 5)

    assert slots.hear(replica("c"), 6) == 1
    assert slots.replicas == (replica("a"), replica("c"))


def test_a_replica_that_came_back_elsewhere_is_another() -> None:
    slots = Slots(2)
    slots.hear(replica("a"), 0)
    moved = Replica("a", "10.0.0.2", 1000, 1001)

    assert slots.hear(moved, 1) == 1

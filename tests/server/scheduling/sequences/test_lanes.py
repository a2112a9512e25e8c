"""The strategies: which requests run together, decided from the queue and the time given."""

from fakes import CountingSink, make_request

from trivet.protos.model_config_pb2 import ModelSequenceBatching
from trivet.server.scheduling.policy import WaitUntil
from trivet.server.scheduling.sequences.lanes import Lane, Step, make_lane, slots_per_instance
from trivet.server.scheduling.sequences.sequence import Sequence, SequenceTicket, Slot

MS_IN_NS = 1_000_000


def sequence_at(number: int, arrived_ns: int = 0, join_key: object = None) -> Sequence:
    sequence = Sequence(number + 1, 0, Slot(number, 0))
    ticket = SequenceTicket(make_request(), CountingSink(), arrived_ns, join_key=join_key)
    sequence.waiting.append(ticket)
    return sequence


def lane_of(batching: ModelSequenceBatching, *sequences: Sequence, size: int = 4) -> Lane:
    lane = make_lane(batching, size)
    for each in sequences:
        lane.add(each)
    return lane


def direct(utilization: float = 0, delay_us: int = 0) -> ModelSequenceBatching:
    strategy = ModelSequenceBatching.StrategyDirect(
        minimum_slot_utilization=utilization, max_queue_delay_microseconds=delay_us
    )
    return ModelSequenceBatching(direct=strategy)


def oldest(delay_us: int = 0, *preferred: int) -> ModelSequenceBatching:
    strategy = ModelSequenceBatching.StrategyOldest(
        max_candidate_sequences=8,
        preferred_batch_size=preferred,
        max_queue_delay_microseconds=delay_us,
    )
    return ModelSequenceBatching(oldest=strategy)


def test_direct_keeps_every_sequence_at_its_position() -> None:
    first, third = sequence_at(0), sequence_at(2)
    lane = lane_of(direct(), first, third)
    assert lane.decide(0) == Step([first, None, third])
    assert lane.decide(0) is None
    lane.add(first)
    assert lane.decide(0) == Step([first, None, None])


def test_direct_forgets_positions_of_sequences_that_are_over() -> None:
    first, third = sequence_at(0), sequence_at(2)
    lane = lane_of(direct(), first, third)
    lane.remove(third)
    assert lane.decide(0) == Step([first])


def test_direct_joins_only_what_fits_the_longest_waiting() -> None:
    big, small = sequence_at(0, 20, "big"), sequence_at(1, 10, "small")
    lane = lane_of(direct(), big, small)
    assert lane.decide(20) == Step([None, small])
    assert lane.decide(20) == Step([big, None])


def test_direct_waits_for_its_least_utilisation_but_not_for_ever() -> None:
    first, second = sequence_at(0, MS_IN_NS), sequence_at(1, MS_IN_NS)
    batching = direct(utilization=0.5, delay_us=1000)
    assert lane_of(batching, first).decide(MS_IN_NS) == WaitUntil(2 * MS_IN_NS)
    assert lane_of(batching, first).decide(2 * MS_IN_NS) == Step([first])
    assert lane_of(batching, first, second).decide(MS_IN_NS) == Step([first, second])


def test_direct_ignores_the_delay_without_a_least_utilisation() -> None:
    first = sequence_at(0)
    assert lane_of(direct(delay_us=1000), first).decide(0) == Step([first])


def test_oldest_takes_the_first_ready_whatever_their_slots() -> None:
    sequences = [sequence_at(number) for number in (5, 1, 7, 0, 3)]
    lane = lane_of(oldest(), *sequences)
    assert lane.decide(0) == Step([*sequences[:4]])
    assert lane.decide(0) == Step([sequences[4]])


def test_oldest_batches_as_the_dynamic_batcher_does() -> None:
    sequences = [sequence_at(number) for number in range(3)]
    lane = lane_of(oldest(1000, 2), *sequences)
    assert lane.decide(0) == Step([*sequences[:2]])
    assert lane.decide(0) == WaitUntil(MS_IN_NS)
    assert lane.decide(MS_IN_NS) == Step([sequences[2]])


def test_oldest_leaves_out_what_is_over() -> None:
    first, second = sequence_at(0), sequence_at(1)
    lane = lane_of(oldest(), first, second)
    lane.remove(first)
    assert lane.decide(0) == Step([second])
    lane.remove(second)
    assert lane.decide(0) is None


def test_an_instance_serves_as_many_sequences_as_the_strategy_says() -> None:
    assert slots_per_instance(oldest(), 4) == 8
    assert slots_per_instance(direct(), 4) == 4
    assert slots_per_instance(ModelSequenceBatching(), 0) == 1

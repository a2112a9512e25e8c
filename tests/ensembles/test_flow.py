"""How requests flow through an ensemble: pruned, optional, conditional, mapped, streamed."""

import asyncio

import numpy as np
import pytest
from ensemble_room import Arrays, Room, config, ensemble, step

from trivet.backends.api import BackendFailed, InvalidRequest

ONE = np.ones((1, 2), np.float32)


def adder(room: Room, name: str, amount: float) -> None:
    room.model(name, config(), lambda given: {"OUT": given["IN"] + np.float32(amount)})


async def test_a_step_starts_as_soon_as_its_inputs_are_there(room: Room) -> None:
    adder(room, "one", 1)
    adder(room, "ten", 10)
    room.model(
        "sum",
        config({"L": "FP32 2", "R": "FP32 2"}),
        lambda given: {"OUT": given["L"] + given["R"]},
    )
    room.ensemble(
        "diamond",
        ensemble(
            step("sum", {"L": "A", "R": "B"}, {"OUT": "Y"}),
            step("ten", {"IN": "X"}, {"OUT": "B"}),
            step("one", {"IN": "X"}, {"OUT": "A"}),
        ),
    )

    assert (await room.infer("diamond", {"X": ONE}))["Y"].tolist() == [[13, 13]]


async def test_steps_that_no_wanted_output_needs_do_not_run(room: Room) -> None:
    adder(room, "one", 1)
    other = room.model("ten", config(), lambda given: {"OUT": given["IN"] + 10})
    room.ensemble(
        "fork",
        ensemble(step("one", {"IN": "X"}, {"OUT": "A"}), step("ten", {"IN": "X"}, {"OUT": "B"})),
    )

    assert list(await room.infer("fork", {"X": ONE}, ("A",))) == ["A"]
    assert other.batches == []


async def test_an_optional_input_may_stay_away(room: Room) -> None:
    room.model(
        "maybe",
        config({"IN": "FP32 2", "MORE": "FP32 2?"}),
        lambda given: {"OUT": given["IN"] + given.get("MORE", np.float32(0))},
    )
    more = (
        'max_batch_size: 8 input { name: "X" data_type: TYPE_FP32 dims: [2] }'
        'input { name: "Z" data_type: TYPE_FP32 dims: [2] optional: true }'
    )
    room.ensemble("e", ensemble(step("maybe", {"IN": "X", "MORE": "Z"}, {"OUT": "Y"}), more=more))

    assert (await room.infer("e", {"X": ONE}))["Y"].tolist() == [[1, 1]]
    assert (await room.infer("e", {"X": ONE, "Z": ONE}))["Y"].tolist() == [[2, 2]]


async def test_a_required_tensor_that_a_step_did_not_give_is_named(room: Room) -> None:
    room.model("forgetful", config(), lambda given: {})
    adder(room, "one", 1)
    room.ensemble(
        "e",
        ensemble(
            step("forgetful", {"IN": "X"}, {"OUT": "T"}), step("one", {"IN": "T"}, {"OUT": "Y"})
        ),
    )
    sink = room.ask("e", {"X": ONE})

    await sink.wait()

    assert sink.error is not None
    assert sink.error.message == (
        "in ensemble 'e', unexpected deadlock, at least one output is not set while no more "
        "ensemble steps can be made: output 'Y': step 0 (model 'forgetful') did "
        "not give output 'OUT'"
    )


PARTIAL = config({"IN": "FP32 2"}, {"OUT": "FP32 2", "MORE": "FP32 2"})
"""Of a model that may leave out MORE."""
TWO_OUTPUTS = (
    'max_batch_size: 8 input { name: "X" data_type: TYPE_FP32 dims: [2] }'
    'output { name: "Y" data_type: TYPE_FP32 dims: [2] }'
    'output { name: "Z" data_type: TYPE_FP32 dims: [2] }'
)


@pytest.mark.parametrize("wanted", [(), ("Y", "Z")])
async def test_a_client_goes_without_an_output_that_a_step_left_out(
    room: Room, wanted: tuple[str, ...]
) -> None:
    room.model("partial", PARTIAL, lambda given: {"OUT": given["IN"] * 2})
    steps = step("partial", {"IN": "X"}, {"OUT": "Y", "MORE": "Z"})
    room.ensemble("e", ensemble(steps, more=TWO_OUTPUTS))
    found = await room.infer("e", {"X": ONE}, wanted)
    assert {name: values.tolist() for name, values in found.items()} == {"Y": [[2, 2]]}


async def test_requests_that_arrive_together_go_without_it_alike(room: Room) -> None:
    room.model("partial", PARTIAL, lambda given: {"OUT": given["IN"] * 2})
    steps = step("partial", {"IN": "X"}, {"OUT": "Y", "MORE": "Z"})
    room.ensemble("e", ensemble(steps, more=TWO_OUTPUTS))
    sinks = [room.ask("e", {"X": ONE * number}) for number in range(3)]
    for number, sink in enumerate(sinks):
        await sink.wait()
        (response,) = sink.responses
        found = [(each.name, each.numpy().tolist()) for each in response.outputs]
        assert found == [("Y", [[2.0 * number] * 2])]


async def test_a_client_may_get_no_output_at_all(room: Room) -> None:
    room.model("partial", PARTIAL, lambda given: {"OUT": given["IN"]})
    steps = step("partial", {"IN": "X"}, {"OUT": "Y", "MORE": "Z"})
    room.ensemble("e", ensemble(steps, more=TWO_OUTPUTS))
    assert await room.infer("e", {"X": ONE}, ("Z",)) == {}


async def test_a_step_that_needs_what_was_left_out_names_it(room: Room) -> None:
    room.model("partial", PARTIAL, lambda given: {"OUT": given["IN"]})
    adder(room, "one", 1)
    steps = (
        step("partial", {"IN": "X"}, {"OUT": "Y", "MORE": "T"}),
        step("one", {"IN": "T"}, {"OUT": "Z"}),
    )
    room.ensemble("e", ensemble(*steps, more=TWO_OUTPUTS))
    sink = room.ask("e", {"X": ONE})
    await sink.wait()
    assert "output 'Z': step 0 (model 'partial') did not give output 'MORE'" in str(sink.error)


async def test_batching_and_other_steps_mix_for_a_batch_of_one(room: Room) -> None:
    adder(room, "one", 1)
    room.model("plain", config(batch=0, more=""), lambda given: {"OUT": given["IN"] * 3})
    more = (
        'max_batch_size: 8 input { name: "X" data_type: TYPE_FP32 dims: [2] }'
        'output { name: "Y" data_type: TYPE_FP32 dims: [2] }'
    )
    text = ensemble(
        step("one", {"IN": "X"}, {"OUT": "T"}), step("plain", {"IN": "T"}, {"OUT": "Y"}), more=more
    )
    room.ensemble("e", text)

    assert (await room.infer("e", {"X": ONE}))["Y"].tolist() == [[6, 6]]
    sink = room.ask("e", {"X": np.ones((2, 2), np.float32)})
    await sink.wait()
    assert isinstance(sink.error, InvalidRequest)
    assert "'T' has a batch of 2, and 'IN' takes no batches" in sink.error.message


async def test_ensembles_can_be_steps(room: Room) -> None:
    adder(room, "one", 1)
    room.ensemble("inner", ensemble(step("one", {"IN": "X"}, {"OUT": "Y"})))
    room.ensemble(
        "outer",
        ensemble(step("inner", {"X": "X"}, {"Y": "T"}), step("one", {"IN": "T"}, {"OUT": "Y"})),
    )

    assert (await room.infer("outer", {"X": ONE}))["Y"].tolist() == [[3, 3]]


# -- conditions ----------------------------------------------------------------------------------


async def test_a_step_whose_condition_does_not_hold_is_skipped_with_all_after_it(
    room: Room,
) -> None:
    adder(room, "one", 1)
    adder(room, "ten", 10)
    adder(room, "hundred", 100)
    room.ensemble(
        "e",
        ensemble(
            step("one", {"IN": "X"}, {"OUT": "A"}),
            step("ten", {"IN": "A"}, {"OUT": "B"}),
            step("hundred", {"IN": "B"}, {"OUT": "C"}),
            more='max_batch_size: 8 output { name: "A" } output { name: "C" }input { name: "X" }',
            ten__when='max(A) > 5 or parameters["all"] == True',
        ),
    )

    assert list(await room.infer("e", {"X": ONE})) == ["A"]
    assert (await room.infer("e", {"X": ONE * 9}))["C"].tolist() == [[120, 120]]


async def test_the_first_maker_whose_condition_holds_makes_the_tensor(room: Room) -> None:
    for name, amount in (("one", 1), ("ten", 10), ("rest", 100), ("last", 1000)):
        adder(room, name, amount)
    room.ensemble(
        "switch",
        ensemble(
            step("one", {"IN": "X"}, {"OUT": "T"}),
            step("ten", {"IN": "X"}, {"OUT": "T"}),
            step("rest", {"IN": "X"}, {"OUT": "T"}),
            step("last", {"IN": "T"}, {"OUT": "Y"}),
            one__when="max(X) < 2",
            ten__when='max(X) < 4 and parameters["fast"]',
        ),
    )

    async def ask(value: float, **parameters: bool) -> float:
        answer = await room.infer("switch", {"X": ONE * value}, parameters=parameters)
        return float(answer["Y"][0, 0])

    assert await ask(1) == 1002
    assert await ask(3, fast=True) == 1013
    assert await ask(3, fast=False) == 1103
    assert await ask(3) == 1103


async def test_an_early_return_answers_with_what_there_is(room: Room) -> None:
    adder(room, "one", 1)
    late = room.model("ten", config(), lambda given: {"OUT": given["IN"] + 10})
    room.ensemble(
        "e",
        ensemble(
            step("one", {"IN": "X"}, {"OUT": "A"}),
            step("ten", {"IN": "A"}, {"OUT": "B"}),
            more='max_batch_size: 8 input { name: "X" } output { name: "A" } output { name: "B" }',
            one__return_if="all(A > 5)",
        ),
    )

    assert list(await room.infer("e", {"X": ONE * 9})) == ["A"]
    assert late.batches == []
    assert list(await room.infer("e", {"X": ONE})) == ["A", "B"]


async def test_a_condition_on_many_values_says_how_to_ask(room: Room) -> None:
    adder(room, "one", 1)
    room.ensemble("e", ensemble(step("one", {"IN": "X"}, {"OUT": "Y"}), one__when="X > 3"))
    sink = room.ask("e", {"X": ONE})

    await sink.wait()

    assert isinstance(sink.error, InvalidRequest)
    assert sink.error.message == (
        "in ensemble 'e', the condition 'X > 3' needs one value, and a tensor of shape [1, 2] has "
        "2; say any(...) or all(...)"
    )


# -- map -----------------------------------------------------------------------------------------

LIST = 'input { name: "XS" data_type: TYPE_FP32 dims: [-1, 2] }'


@pytest.mark.parametrize("length", [0, 1, 5])
async def test_a_map_takes_each_element_and_gathers_the_answers(room: Room, length: int) -> None:
    model = room.model("double", config(), lambda given: {"OUT": given["IN"] * 2})
    room.ensemble(
        "e", ensemble(step("double", {"IN": "XS"}, {"OUT": "YS"}), more=LIST, double__map="XS")
    )
    values = np.arange(length * 2, dtype=np.float32).reshape(length, 2)

    answer = await room.infer("e", {"XS": values})

    assert answer["YS"].shape == (length, 2)
    assert answer["YS"].tolist() == (values * 2).tolist()
    assert [len(batch.requests) for batch in model.batches] == ([length] if length else [])
    # Neighbours stay together: neither the way in nor the way out has copied them.
    assert sum(room.statistics["double"].copied_bytes.values()) == 0
    assert sum(room.statistics["e"].copied_bytes.values()) == 0


async def test_a_map_in_a_batch_keeps_the_batch(room: Room) -> None:
    room.model(
        "sum",
        config({"IN": "FP32 3"}, {"OUT": "FP32 1"}),
        lambda given: {"OUT": given["IN"].sum(1, keepdims=True)},
    )
    more = "max_batch_size: 4 " + LIST.replace("-1, 2", "-1, 3")
    room.ensemble("e", ensemble(step("sum", {"IN": "XS"}, {"OUT": "YS"}), more=more, sum__map="XS"))
    values = np.arange(12, dtype=np.float32).reshape(2, 2, 3)

    answer = await room.infer("e", {"XS": values})

    assert answer["YS"].tolist() == values.sum(2, keepdims=True).tolist()


async def test_a_map_over_a_model_without_batches_stacks_its_answers(room: Room) -> None:
    room.model("plain", config(batch=0, more=""), lambda given: {"OUT": given["IN"] * 3})
    room.ensemble(
        "e", ensemble(step("plain", {"IN": "XS"}, {"OUT": "YS"}), more=LIST, plain__map="XS")
    )
    values = np.arange(6, dtype=np.float32).reshape(3, 2)

    assert (await room.infer("e", {"XS": values}))["YS"].tolist() == (values * 3).tolist()


async def test_a_failing_element_fails_the_map_once(room: Room) -> None:
    def picky(given: Arrays) -> Arrays:
        if given["IN"].max() > 3:
            raise BackendFailed("too large")
        return {"OUT": given["IN"]}

    room.model("picky", config(more=""), picky)
    room.ensemble(
        "e", ensemble(step("picky", {"IN": "XS"}, {"OUT": "YS"}), more=LIST, picky__map="XS")
    )
    sink = room.ask("e", {"XS": np.arange(12, dtype=np.float32).reshape(6, 2)})

    await sink.wait()

    assert sink.error is not None
    assert sink.error.message == "in ensemble 'e', too large"


# -- streams -------------------------------------------------------------------------------------

STREAM = config({"IN": "FP32 2"}, {"OUT": "FP32 2"}, batch=0, more="")


def counting(given: Arrays) -> list[Arrays]:
    """As many responses as the first value says."""
    return [{"OUT": given["IN"] + np.float32(i)} for i in range(int(given["IN"][0]))]


async def responses(room: Room, name: str, value: float, **fields: object) -> list[Arrays]:
    sink = room.ask(name, {"X": np.full(2, value, np.float32)}, **fields)  # type: ignore[arg-type]
    await sink.wait()
    assert sink.error is None, sink.error
    return [{t.name: t.numpy() for t in r.outputs} for r in sink.responses]


async def test_each_response_of_a_stream_goes_through_the_steps_after_it_in_order(
    room: Room,
) -> None:
    room.stream("count", STREAM, counting)
    room.model("plain", config(batch=0, more=""), lambda given: {"OUT": given["IN"] * 10})
    room.ensemble(
        "e",
        ensemble(
            step("count", {"IN": "X"}, {"OUT": "T"}), step("plain", {"IN": "T"}, {"OUT": "Y"})
        ),
    )

    answers = await responses(room, "e", 4)

    assert [answer["Y"][0] for answer in answers] == [40, 50, 60, 70]
    assert await responses(room, "e", 0) == []


async def test_what_a_stream_does_not_touch_is_in_each_answer(room: Room) -> None:
    room.stream("count", STREAM, counting)
    room.model("plain", config(batch=0, more=""), lambda given: {"OUT": given["IN"] * 10})
    room.ensemble(
        "e",
        ensemble(
            step("count", {"IN": "X"}, {"OUT": "T"}),
            step("plain", {"IN": "X"}, {"OUT": "Y"}),
            more='input { name: "X" } output { name: "T" } output { name: "Y" }',
        ),
    )

    answers = await responses(room, "e", 2)

    assert [(a["T"][0], a["Y"][0]) for a in answers] == [(2, 20), (3, 20)]


async def test_a_stream_of_streams_stays_in_order(room: Room) -> None:
    room.stream("count", STREAM, counting)
    room.stream("again", STREAM, counting)
    room.ensemble(
        "e",
        ensemble(
            step("count", {"IN": "X"}, {"OUT": "T"}), step("again", {"IN": "T"}, {"OUT": "Y"})
        ),
    )

    answers = await responses(room, "e", 2)

    assert [answer["Y"][0] for answer in answers] == [2, 3, 3, 4, 5]


async def test_a_condition_filters_a_stream(room: Room) -> None:
    room.stream("count", STREAM, counting)
    room.model("plain", config(batch=0, more=""), lambda given: {"OUT": given["IN"] * 10})
    room.ensemble(
        "e",
        ensemble(
            step("count", {"IN": "X"}, {"OUT": "T"}),
            step("plain", {"IN": "T"}, {"OUT": "Y"}),
            plain__when="max(T) > 4",
        ),
    )

    assert [a["Y"][0] for a in await responses(room, "e", 4)] == [50, 60, 70]


async def test_no_more_responses_are_on_their_way_than_the_config_allows(room: Room) -> None:
    most = 0
    now = 0

    room.stream("count", STREAM, counting)
    slow = room.model("plain", config(batch=0, more=""), lambda given: {"OUT": given["IN"]})
    executor = room.registry.routers.resolve("plain", None).model.executor
    submit = executor.submit

    def counted(request: object, sink: object) -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        inner = sink.send  # type: ignore[attr-defined]

        class Sink:
            def send(self, response: object, *, final: bool) -> None:
                nonlocal now
                now -= 1
                inner(response, final=final)

        submit(request, Sink())  # type: ignore[arg-type]

    executor.submit = counted  # type: ignore[method-assign]
    text = ensemble(
        step("count", {"IN": "X"}, {"OUT": "T"}), step("plain", {"IN": "T"}, {"OUT": "Y"})
    )
    room.ensemble(
        "e", text.replace("ensemble_scheduling {", "ensemble_scheduling { max_inflight_requests: 2")
    )

    answers = await responses(room, "e", 20)

    assert [a["Y"][0] for a in answers] == list(range(20, 40))
    assert most == 2
    assert len(slow.batches) == 20


# -- sequences -----------------------------------------------------------------------------------


async def test_steps_know_the_request_s_sequence(room: Room) -> None:
    model = room.model("one", config(), lambda given: {"OUT": given["IN"]})
    room.ensemble("e", ensemble(step("one", {"IN": "X"}, {"OUT": "Y"})))

    await room.infer("e", {"X": ONE}, sequence_id="s", sequence_start=True, priority=2)

    (request,) = model.requests
    assert (request.sequence_id, request.sequence_start, request.sequence_end) == ("s", True, False)
    assert (request.id, request.priority, request.callers) == ("id", 2, ("e",))


async def test_many_requests_at_once_do_not_mix(room: Room) -> None:
    for name, amount in (("one", 1), ("ten", 10), ("hundred", 100)):
        adder(room, name, amount)
    room.ensemble(
        "e",
        ensemble(
            step("one", {"IN": "X"}, {"OUT": "A"}),
            step("ten", {"IN": "A"}, {"OUT": "B"}),
            step("hundred", {"IN": "A"}, {"OUT": "C"}),
        ),
    )

    answers = await asyncio.gather(
        *(room.infer("e", {"X": np.full((1 + i % 3, 2), i, np.float32)}) for i in range(100))
    )

    for i, answer in enumerate(answers):
        assert answer["B"].tolist() == [[i + 11] * 2] * (1 + i % 3)
        assert answer["C"].tolist() == [[i + 101] * 2] * (1 + i % 3)

"""What a step says of the request's sequence holds for the steps after it and for the answer."""

import numpy as np
from ensemble_room import Room, config, ensemble, step

from trivet.backends.api import Batch, Tensor
from trivet.server.repository.config import parse_config

ONE = np.ones((1, 2), np.float32)


class Saying:
    """Answers its input, with parameters."""

    def __init__(self, **parameters: bool | int | str) -> None:
        self.parameters = parameters

    def execute(self, batch: Batch) -> None:
        for index, request in enumerate(batch.requests):
            output: Tensor = request.inputs["IN"].under("OUT")
            batch.respond(index, [output], self.parameters)

    def is_ready(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing."""


CHAIN = ensemble(
    step("says", {"IN": "X"}, {"OUT": "T"}),
    step("next", {"IN": "T"}, {"OUT": "U"}),
    step("last", {"IN": "U"}, {"OUT": "Y"}),
)


async def test_a_step_s_sequence_parameters_reach_later_steps_and_the_client(room: Room) -> None:
    room.open("says", parse_config(config(), "says"), Saying(sequence_id=7, sequence_end=True, x=1))
    following = room.model("next", config(), lambda given: {"OUT": given["IN"]})
    last = room.model("last", config(), lambda given: {"OUT": given["IN"]})
    room.ensemble("e", CHAIN)

    sink = room.ask("e", {"X": ONE}, sequence_id=3, sequence_start=True)
    await sink.wait()

    for model in (following, last):
        (request,) = model.requests
        flags = (request.sequence_id, request.sequence_start, request.sequence_end)
        assert flags == (7, True, True)
    assert sink.responses[0].parameters == {
        "sequence_id": 7,
        "sequence_start": False,
        "sequence_end": True,
    }


async def test_a_later_step_has_the_last_word(room: Room) -> None:
    room.open("says", parse_config(config(), "says"), Saying(sequence_id="a", sequence_start=True))
    room.open("next", parse_config(config(), "next"), Saying(sequence_start=False))
    last = room.model("last", config(), lambda given: {"OUT": given["IN"]})
    room.ensemble("e", CHAIN)

    sink = room.ask("e", {"X": ONE})
    await sink.wait()

    (request,) = last.requests
    assert (request.sequence_id, request.sequence_start) == ("a", False)
    assert sink.responses[0].parameters == {
        "sequence_id": "a",
        "sequence_start": False,
        "sequence_end": False,
    }

"""What a smaller model computes of the sequences that it guesses for."""

import torch
from real_engine import GREEDY
from torch import Tensor

from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.engine.generation import row_of
from trivet.backends.llm.messages import Submit
from trivet.backends.llm.scheduling.batch_state import BatchState
from trivet.backends.llm.scheduling.sequence import Sequence
from trivet.backends.llm.speculation.draft_model import DraftModel
from trivet.backends.llm.steps.runner import TorchRunner

MOST, SAID, VOCABULARY = 8, 9, 16
ROW = row_of(Submit("0", [1], GREEDY, 0, [], [1], 0, ""), None)


class Model:
    """Always says the same."""

    def __init__(self) -> None:
        self.places: list[list[int]] = []
        """That each step computed."""

    def forward(self, inputs: StepInputs) -> Tensor:
        self.places.append(inputs.positions.tolist())
        logits = torch.zeros(len(inputs.sample_rows), VOCABULARY)
        logits[:, SAID] = 1
        return logits


def drafting() -> tuple[Model, DraftModel]:
    model = Model()
    state = BatchState(max_num_seqs=4, max_model_len=64, block_size=4)
    return model, DraftModel(TorchRunner(model), state, MOST, VOCABULARY)


def sequence_of(name: str, num_tokens: int) -> Sequence:
    sequence = Sequence(name, [1] * num_tokens, 40)
    sequence.block_ids[:] = range(1, 17)
    sequence.draft_room = 3
    return sequence


def test_places_of_guesses_that_were_wrong_are_computed_again() -> None:
    model, drafter = drafting()
    sequence = sequence_of("0", 4)
    drafter.draft([sequence], [ROW])
    assert model.places == [[0, 1, 2, 3], [4], [5]]
    # The first was right; some steps went by without guesses.
    sequence.token_ids += [SAID, 1, 2, 3]
    model.places.clear()
    drafter.draft([sequence], [ROW])
    assert model.places == [[5, 6, 7], [8], [9]]
    sequence.token_ids += [SAID, SAID, SAID, 4]
    model.places.clear()
    drafter.draft([sequence], [ROW])
    assert model.places[0] == [10, 11], "all were right"


def test_no_step_has_more_tokens_than_it_may() -> None:
    model, drafter = drafting()
    sequences = [sequence_of(str(number), 20) for number in range(3)]
    drafter.draft(sequences, [ROW] * 3)
    assert max(map(len, model.places)) <= MOST
    assert [sequence.draft_ids for sequence in sequences] == [[SAID] * 3] * 3


def test_tokens_that_only_an_adapter_knows_are_not_read() -> None:
    model, drafter = drafting()
    own, strange = sequence_of("0", 2), sequence_of("1", 3)
    strange.token_ids.append(VOCABULARY)
    drafter.draft([own, strange], [ROW] * 2)
    assert model.places == [[0, 1], [2], [3]]
    assert (own.draft_ids, strange.draft_ids) == ([SAID] * 3, [])
    strange.token_ids.append(1)
    model.places.clear()
    drafter.draft([strange], [ROW])
    assert model.places == []

"""A sequence that cannot be computed costs itself alone; a lack of memory costs time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from decoder_classes import MODEL_LEN, open_folder, save
from real_engine import GREEDY, DrivenEngine, rescheduled, submit
from tiny_decoders import tiny_model

POISON = 90
PROMPTS = [[7, 41, 12, 5, 9], [11 + (7 * place) % 71 for place in range(14)], [3, 4, 5]]
WAYS = {"gpt_neo": "pages alone", "lfm2": "states"}
Fault = Callable[[torch.Tensor], Exception | None]


@pytest.fixture(scope="module", params=WAYS)
def model_folder(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Any:
    folder: Path = tmp_path_factory.mktemp(request.param)
    model = tiny_model(request.param)
    save(model, folder)
    return type(model), folder


def opened(model_folder: Any, monkeypatch: pytest.MonkeyPatch, fault: Fault) -> DrivenEngine:
    """An engine whose model fails where `fault` says, once it is loaded."""
    kind, folder = model_folder
    driven = open_folder(folder, with_families=False)
    compute = kind.forward

    def forward(self: Any, input_ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        output = compute(self, input_ids, *args, **kwargs)  # which a state goes on with
        error = fault(input_ids)
        if error is not None:
            raise error
        return output

    monkeypatch.setattr(kind, "forward", forward)
    return driven


def expected(model_folder: Any) -> list[list[int]]:
    return open_folder(model_folder[1], with_families=False).tokens(PROMPTS, GREEDY)


def test_a_sequence_that_cannot_be_computed_ends_alone(
    model_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = expected(model_folder)

    def fault(ids: torch.Tensor) -> Exception | None:
        return IndexError("no such row") if POISON in ids.flatten().tolist() else None

    driven = opened(model_folder, monkeypatch, fault)
    prompts = [*PROMPTS[:2], [5, POISON, 6], PROMPTS[2]]
    results = driven.run([submit(str(at), ids, GREEDY) for at, ids in enumerate(prompts)])
    assert "the model failed" in results["2"].error
    assert [results[name].tokens for name in ("0", "1", "3")] == wanted


def test_parts_that_do_not_fit_the_memory_are_computed_in_smaller_ones(
    model_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = expected(model_folder)

    def fault(ids: torch.Tensor) -> Exception | None:
        is_large = ids.shape[1] > 8
        return torch.OutOfMemoryError("CUDA out of memory\nmore") if is_large else None

    assert opened(model_folder, monkeypatch, fault).tokens(PROMPTS, GREEDY) == wanted


def test_memory_that_is_short_for_a_moment_costs_no_sequence_its_state(
    model_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = expected(model_folder)
    calls = iter(range(1000))

    def fault(ids: torch.Tensor) -> Exception | None:
        is_one = ids.shape[1] == 2 and next(calls) == 0
        return torch.OutOfMemoryError("CUDA out of memory") if is_one else None

    driven = opened(model_folder, monkeypatch, fault)
    chunked = rescheduled(
        driven, block_size=4, max_batched_tokens=4, prefix_caching=False, max_num_seqs=3,
        max_model_len=MODEL_LEN,
    )  # fmt: skip
    assert chunked.tokens(PROMPTS, GREEDY) == wanted
    assert next(calls) > 0

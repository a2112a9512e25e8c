"""How long texts are taken to be, before they are tokenised."""

from pathlib import Path

import numpy as np
import pytest
from encoder_folders import TEXTS, make_encoder
from encoder_site import answer, config_of, open_encoder, request, run

from trivet.backends.api import Batch, CostsByLength
from trivet.backends.api.encoder import EncoderInfo
from trivet.backends.api.supervision import Supervised
from trivet.backends.encoder.lengths import TextLengths


def lengths_of(folder: Path) -> TextLengths:
    info = EncoderInfo.of(config_of(folder))
    assert info is not None
    return TextLengths(info)


def test_texts_are_measured_by_their_bytes_and_ids_are_counted(tmp_path: Path) -> None:
    lengths = lengths_of(make_encoder(tmp_path / "m/1"))
    assert lengths.budget == 512
    assert lengths.of(request("a" * 40, "b" * 80)) == 22
    assert lengths.of(request("a" * 40, pairs=("b" * 40,))) == 22
    assert lengths.of(request("a" * 4000)) == 40, "no longer than what the model takes"
    assert lengths.of(request(ids=[[1, 2, 3]])) == 3


def test_they_learn_how_many_bytes_are_a_token(tmp_path: Path) -> None:
    lengths = lengths_of(make_encoder(tmp_path / "m/1"))
    batch = Batch([request("a" * 40), request(ids=[[1] * 30])], batching=True)
    batch.read_tokens(0, 20)
    batch.read_tokens(1, 30)
    for _ in range(500):
        lengths.learn(batch)
    assert lengths.of(request("a" * 20)) == pytest.approx(12, abs=1)


def test_a_batch_says_how_many_tokens_were_read_for_each_request(tmp_path: Path) -> None:
    instance = open_encoder(make_encoder(tmp_path / "m/1"))
    asked = [
        request("hot dishes", "ada works there"),
        request("a " * 90),
        request(ids=[[1, 2]]),
        request("hot dishes", outputs=("tokens",)),
    ]
    batch = run(instance, *asked)
    assert list(batch.errors) == [1]
    assert batch.num_tokens == {0: 4 + 5, 2: 2}, "what is only tokenised is not computed"


@pytest.mark.slow
def test_a_process_of_its_own_gives_the_same_and_is_batched_alike(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "m/1")
    expected = answer(open_encoder(folder), *TEXTS)
    instance = open_encoder(folder, isolation="process")
    try:
        assert isinstance(instance, CostsByLength)
        assert isinstance(instance, Supervised)
        asked = request("a" * 400)
        assert (instance.length_budget, instance.length_of(asked)) == (512, 40)
        batch = run(instance, request(*TEXTS), request("a " * 90), request("ada"))
        assert list(batch.errors) == [1]
        assert batch.num_tokens == {0: int(expected["num_tokens"].sum()), 2: 3}
        found = {tensor.name: tensor.numpy() for tensor in batch.outputs[0]}
        np.testing.assert_allclose(found["embedding"], expected["embedding"], rtol=1e-5)
    finally:
        instance.close()

"""Classifiers, cross-encoders and token classifiers: what transformers' own pipelines answer."""

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import transformers
from encoder_folders import PAIRS, TEXTS, make_encoder, set_tokenizer
from encoder_site import answer, open_encoder

LABELS = ("good", "bad", "neither")
TAGS = ("O", "B-PER", "I-PER", "B-LOC")
CLASSIFIER, TAGGER = "ForSequenceClassification", "ForTokenClassification"


def pipeline(task: str, folder: Path, **more: Any) -> Any:
    make: Any = transformers.pipeline  # typed by each task's name
    return make(task, model=str(folder), device="cpu", **more)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "modernbert"])
@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification"])
def test_scores_are_the_pipeline_s(tmp_path: Path, family: str, problem: str) -> None:
    folder = make_encoder(tmp_path / "m/1", family, CLASSIFIER, LABELS, problem_type=problem)

    found = answer(open_encoder(folder), *TEXTS)

    wanted = pipeline("text-classification", folder, top_k=None)(list(TEXTS))
    for scores, label, each in zip(found["scores"], found["label"], wanted, strict=True):
        by_label = {entry["label"]: entry["score"] for entry in each}
        np.testing.assert_allclose(scores, [by_label[name] for name in LABELS], atol=2e-5)
        assert label[0].decode() == max(by_label, key=by_label.__getitem__)
    assert "logits" not in found


@pytest.mark.parametrize(
    ("family", "tells_apart"), [("bert", True), ("bert", False), ("xlm-roberta", False)]
)
@pytest.mark.parametrize("activation", ["", "torch.nn.modules.linear.Identity"])
def test_scores_of_pairs_are_the_cross_encoder_s(
    tmp_path: Path, family: str, activation: str, tells_apart: bool
) -> None:
    from sentence_transformers import CrossEncoder

    more = {"sentence_transformers": {"activation_fn": activation}} if activation else {}
    folder = make_encoder(tmp_path / "m/1", family, CLASSIFIER, ("LABEL_0",), **more)
    if tells_apart:
        set_tokenizer(folder, "BertTokenizer")
    firsts, seconds = zip(*PAIRS, strict=True)

    found = answer(open_encoder(folder), *firsts, pairs=seconds)["scores"]

    wanted = CrossEncoder(str(folder), device="cpu", local_files_only=True).predict(list(PAIRS))
    np.testing.assert_allclose(found[:, 0], wanted, atol=2e-5)


def test_the_longer_text_of_a_pair_is_cut_first(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "m/1", "bert", CLASSIFIER, ("LABEL_0",))

    found = answer(
        open_encoder(folder),
        "good",
        pairs=("bad " * 90,),
        truncate=True,
        outputs=("tokens", "num_tokens"),
    )

    assert found["num_tokens"].tolist() == [[40]]
    assert [t["text"] for t in orjson.loads(found["tokens"][0, 0])][:3] == [
        "[CLS]",
        "good",
        "[SEP]",
    ]


@pytest.mark.parametrize("strategy", ["none", "simple"])
def test_entities_are_the_pipeline_s(tmp_path: Path, strategy: str) -> None:
    folder = make_encoder(tmp_path / "m/1", "bert", TAGGER, TAGS)

    found = answer(open_encoder(folder), *TEXTS, aggregation_strategy=strategy)["entities"]

    wanted = pipeline("token-classification", folder, aggregation_strategy=strategy)(list(TEXTS))
    for text, each in zip(found[:, 0], wanted, strict=True):
        entities = orjson.loads(text)
        assert [_exact(entity) for entity in entities] == [_exact(entity) for entity in each]
        scores = [float(entity["score"]) for entity in each]
        np.testing.assert_allclose([e["score"] for e in entities], scores, atol=2e-5)
    assert any(wanted), "nothing was found: the test says nothing"


def _exact(entity: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entity.items() if name != "score"}


def test_logits_of_tokens_come_where_they_are_asked_for(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "m/1", "bert", TAGGER, TAGS)

    found = answer(open_encoder(folder), "hot dishes", outputs=("logits",))

    assert found["logits"].shape == (1, 4, len(TAGS))

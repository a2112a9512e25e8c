"""What lies in an encoder's folder: its task, limits, labels, prompts and modules. Reads JSON, and
knows no tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trivet.backends.api import InvalidConfig
from trivet.backends.api.encoder import Task
from trivet.backends.encoder.about import MODULES, TOKENIZER
from trivet.backends.encoder.modules import Module, Pooling, read_modules
from trivet.backends.hugging_face.files import CONFIG
from trivet.backends.hugging_face.folder import (
    architecture_of,
    labels_of,
    onnx_file,
    read_json,
)

USUAL_MAX_TOKENS = 512
_NO_LIMIT = 10**9
"""transformers writes a number of thirty digits where a tokenizer has no limit."""
_POSITIONS_BEHIND_PADDING = (
    "camembert",
    "data2vec-text",
    "ibert",
    "longformer",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
)
"""Model types that count positions from the padding token's id on: so many fewer tokens fit."""
_SENTENCE_CONFIGS = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
_ACTIVATIONS = {"Sigmoid": "sigmoid", "Identity": "identity", "Softmax": "softmax"}


@dataclass(frozen=True, slots=True)
class Prompts:
    """Texts that go before a text, by name."""

    by_name: Mapping[str, str]
    default: str = ""
    """The name of the one that is used where none is asked for; none: no prompt."""


@dataclass(frozen=True, slots=True)
class Folder:
    """An encoder's folder."""

    path: Path
    """Where config.json and weights are."""
    config: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    """tokenizer_config.json."""
    task: Task
    max_tokens: int
    labels: tuple[str, ...]
    activation: str
    """What turns logits into scores: softmax, sigmoid or identity."""
    modules: tuple[Module, ...]
    prompts: Prompts
    dimensions: int | None
    """To which vectors are cut (truncate_dim); None: not."""
    lowers: bool
    """Whether texts are made lower case before they are tokenised."""
    onnx: Path | None

    @property
    def architecture(self) -> str:
        """As the config names it."""
        return str(self.config["architectures"][0])

    @property
    def vocabulary_size(self) -> int:
        """How many tokens have a vector."""
        return int(self.config.get("vocab_size") or 0)

    @property
    def vector_size(self) -> int:
        """Of a vector that comes out of the modules."""
        size = hidden_size(self.config)
        for module in self.modules:
            size = module.size_after(size)
        return size if self.dimensions is None else min(size, self.dimensions)

    @property
    def pooling(self) -> str:
        """How token vectors become one; several are joined by "+"."""
        found = [each for each in self.modules if isinstance(each, Pooling)]
        return "+".join(found[0].modes) if found else "none"


def read_folder(root: Path, name: str) -> Folder:
    """Raises InvalidConfig for what is missing, or is not computed here; `name` is the model's."""
    modules = read_modules(root, name) if (root / MODULES).exists() else None
    path = root if modules is None else modules.body
    config = read_json(path / CONFIG, name)
    architecture = architecture_of(config, name)
    if not (path / TOKENIZER).exists():
        raise InvalidConfig(
            f"model '{name}': the folder has no {TOKENIZER}; write one with "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) of transformers"
        )
    task = _task(architecture, config)
    sentence = _first_of(path, _SENTENCE_CONFIGS, name)
    tokenizer = _first_of(path, ("tokenizer_config.json",), name)
    prompts, dimensions = _prompts(root, name)
    return Folder(
        path,
        config,
        tokenizer,
        task,
        _max_tokens(config, tokenizer, sentence),
        labels_of(config) if task is not Task.EMBED else (),
        _activation(config, task),
        _chain(task, modules),
        prompts,
        dimensions,
        bool(sentence.get("do_lower_case")),
        onnx_file(path, root),
    )


def _chain(task: Task, modules: "Any | None") -> tuple[Module, ...]:
    if task is not Task.EMBED:
        return ()
    # As sentence-transformers does where nothing says how.
    return (Pooling(("mean",)),) if modules is None else tuple(modules.after)


def hidden_size(config: Mapping[str, Any]) -> int:
    """Of a token's vector."""
    for key in ("hidden_size", "d_model", "dim", "n_embd"):
        if isinstance(config.get(key), int):
            return int(config[key])
    return 0


def _task(architecture: str, config: Mapping[str, Any]) -> Task:
    if architecture.endswith("ForTokenClassification"):
        return Task.TOKENS
    if not architecture.endswith("ForSequenceClassification"):
        return Task.EMBED
    return Task.SCORE if len(labels_of(config)) == 1 else Task.CLASSIFY


def _activation(config: Mapping[str, Any], task: Task) -> str:
    """As CrossEncoder of sentence-transformers chooses for one label, and transformers' pipeline
    for several."""
    if task is Task.SCORE:
        own = config.get("sentence_transformers")
        given = own.get("activation_fn") if isinstance(own, dict) else None
        given = given or config.get("sbert_ce_default_activation_function") or "Sigmoid"
        return _ACTIVATIONS.get(str(given).rpartition(".")[2], "sigmoid")
    problem = config.get("problem_type")
    named = {"multi_label_classification": "sigmoid", "regression": "identity"}
    return named.get(str(problem), "softmax")


def _first_of(path: Path, files: Sequence[str], name: str) -> Mapping[str, Any]:
    """The first file of these that is there."""
    for each in files:
        if (path / each).exists():
            return read_json(path / each, name)
    return {}


def _max_tokens(
    config: Mapping[str, Any], tokenizer: Mapping[str, Any], sentence: Mapping[str, Any]
) -> int:
    """The smallest of the limits that the folder's files give."""
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and config.get("model_type") in _POSITIONS_BEHIND_PADDING:
        padding = config.get("pad_token_id")
        positions -= (padding if isinstance(padding, int) else 1) + 1
    given = (positions, tokenizer.get("model_max_length"), sentence.get("max_seq_length"))
    limits = [int(each) for each in given if isinstance(each, int | float) and 0 < each < _NO_LIMIT]
    return min(limits, default=USUAL_MAX_TOKENS)


def _prompts(root: Path, name: str) -> tuple[Prompts, int | None]:
    path = root / "config_sentence_transformers.json"
    given = read_json(path, name) if path.exists() else {}
    texts = given.get("prompts")
    by_name = {str(k): str(v) for k, v in texts.items() if v} if isinstance(texts, dict) else {}
    default = given.get("default_prompt_name")
    dimensions = given.get("truncate_dim")
    return (
        Prompts(by_name, default if isinstance(default, str) else ""),
        dimensions if isinstance(dimensions, int) else None,
    )

"""What the backend for encoders says of itself."""

import re

from trivet.backends.api import About, Claim, Listing, Memory

PARAMETERS = (
    "compute",
    "default_prompt_name",
    "dtype",
    "encoder_info",
    "max_batch_tokens",
    "max_text_bytes",
    "max_tokens",
    "truncate",
)
CONFIG, MODULES, TOKENIZER = "config.json", "modules.json", "tokenizer.json"
ONNX_FILE, ONNX_FOLDER = "model.onnx", "onnx"

_WEIGHTS = re.compile(r"(.*\.safetensors|pytorch_model.*\.bin)")
_ARCHITECTURE = re.compile(r'"architectures"\s*:\s*\[\s*"(\w+)"')
_MODEL_TYPE = re.compile(r'"model_type"\s*:\s*"([\w-]+)"')
_HEADS = ("ForSequenceClassification", "ForTokenClassification")
_BODIES = ("Model", "ForMaskedLM", "ForPreTraining")
_FAMILIES = re.compile(
    r"(.*-)?(albert|bert|bart|big_bird|camembert|canine|convbert|data2vec-text|deberta|deberta-v2"
    r"|distilbert|electra|ernie|esm|eurobert|flaubert|fnet|funnel|ibert|layoutlm|longformer|luke"
    r"|mobilebert|modernbert|mpnet|mra|nezha|nomic_bert|nystromformer|rembert|roberta|roformer"
    r"|squeezebert|t5|xlm|xlm-roberta|xlm-roberta-xl|xlnet|xmod|yoso)"
)
"""Whose bodies read a text in both directions. What else ends with "Model" may be anything; it is
an encoder where sentence-transformers has written down how its vectors are made."""


def _recognise(listing: Listing) -> Claim | None:
    """A Hugging Face folder of an encoder: its config names the architecture."""
    if CONFIG not in listing.names or not _has_weights(listing):
        return None
    config = listing.text_of(CONFIG)
    if not _is_encoder(config, has_modules=MODULES in listing.names):
        return None
    # Beside its tokenizer an ONNX file is the encoder's, not a model of tensors.
    is_file = ONNX_FILE in listing.names and TOKENIZER in listing.names
    return Claim.FILE if is_file else Claim.CONTENT


def _has_weights(listing: Listing) -> bool:
    return bool({ONNX_FILE, ONNX_FOLDER} & listing.names) or any(
        _WEIGHTS.fullmatch(name) for name in listing.names
    )


def _is_encoder(config: str, *, has_modules: bool) -> bool:
    found = _ARCHITECTURE.search(config)
    if found is None:
        return False
    architecture = found[1]
    if architecture.endswith(_HEADS) or has_modules:
        return True
    family = _MODEL_TYPE.search(config)
    is_known = family is not None and _FAMILIES.fullmatch(family[1]) is not None
    return is_known and architecture.endswith(_BODIES)


ABOUT = About(
    word="encoder",
    backend="trivet.backends.encoder.backend:BACKEND",
    recognise=_recognise,
    # A folder with modules.json makes vectors, whatever its architecture generates elsewhere.
    preference=5,
    packages=("safetensors", "tokenizers", "torch", "transformers"),
    install="trivet[encoders]",
    completes=frozenset({"dynamic_batching", "input", "max_batch_size", "output", "parameters"}),
    only_reads=True,
    fields=(),
    parameters=PARAMETERS,
    memory=Memory(weight_suffixes=(".safetensors", ".bin", ".onnx", ".onnx_data")),
)

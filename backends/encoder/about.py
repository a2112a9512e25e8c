"""What the backend for encoders says of itself."""

import re

from trivet.backends.api import About, Claim, Listing, Memory
from trivet.backends.hugging_face.files import CONFIG, ONNX_PATHS, WEIGHTS

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
MODULES, TOKENIZER = "modules.json", "tokenizer.json"

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
    has_file = not listing.paths.isdisjoint(ONNX_PATHS) and TOKENIZER in listing.names
    if not has_file and not listing.ending(*WEIGHTS):
        return None
    return Claim.FOLDER if _is_encoder(listing) else None


def _is_encoder(listing: Listing) -> bool:
    config = listing.json_of(CONFIG)
    named = config.get("architectures")
    architecture = str(named[0]) if isinstance(named, list) and named else ""
    if architecture.endswith(_HEADS) or (architecture and MODULES in listing.names):
        return True
    is_known = _FAMILIES.fullmatch(str(config.get("model_type"))) is not None
    return is_known and architecture.endswith(_BODIES)


ABOUT = About(
    word="encoder",
    backend="trivet.backends.encoder.backend:BACKEND",
    recognise=_recognise,
    packages=("safetensors", "tokenizers", "torch", "transformers"),
    install="trivet[encoders]",
    completes=frozenset({"dynamic_batching", "input", "max_batch_size", "output", "parameters"}),
    only_reads=True,
    fields=(),
    parameters=PARAMETERS,
    # One reads texts and hands answers back while the other computes.
    cpu_instances=2,
    memory=Memory(
        weight_suffixes=(".safetensors", ".bin", ".onnx", ".onnx_data"),
        shared_on=("KIND_CPU",),
    ),
)

"""What the backend for image classifiers says of itself."""

from trivet.backends.api import About, Claim, Listing, Memory
from trivet.backends.hugging_face.files import CONFIG, ONNX_PATHS, PREPROCESSOR, WEIGHTS

PARAMETERS = (
    "compute",
    "dtype",
    "image_classifier_info",
    "image_formats",
    "max_aspect_ratio",
    "max_image_bytes",
    "max_pixels",
)
_HEAD = "ForImageClassification"
"""In the names of architectures; some have a word behind it."""


def _recognise(listing: Listing) -> Claim | None:
    """A Hugging Face folder whose config names an image classifier, with its preprocessing."""
    if listing.paths.isdisjoint(ONNX_PATHS) and not listing.ending(*WEIGHTS):
        return None
    return Claim.FOLDER if PREPROCESSOR in listing.names and _is_classifier(listing) else None


def _advise(listing: Listing) -> str | None:
    if PREPROCESSOR in listing.names or not _is_classifier(listing):
        return None
    return (
        f"the folder has no {PREPROCESSOR}, which says how images are made the model's input; "
        "write one with AutoImageProcessor.from_pretrained(NAME).save_pretrained(FOLDER) of "
        "transformers"
    )


def _is_classifier(listing: Listing) -> bool:
    named = listing.json_of(CONFIG).get("architectures")
    return isinstance(named, list) and bool(named) and _HEAD in str(named[0])


ABOUT = About(
    word="image_classifier",
    backend="trivet.backends.image_classifier.backend:BACKEND",
    recognise=_recognise,
    advise=_advise,
    packages=("PIL", "safetensors", "torch", "transformers"),
    install="trivet[encoders]",
    completes=frozenset({"dynamic_batching", "input", "max_batch_size", "output", "parameters"}),
    only_reads=True,
    fields=(),
    parameters=PARAMETERS,
    memory=Memory(weight_suffixes=(".safetensors", ".bin", ".onnx", ".onnx_data")),
)

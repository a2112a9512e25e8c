"""What the backend for models in Python says of itself."""

from trivet.backends.api import About, Claim, Listing, Memory

MODEL_FILE = "model.py"


def _recognise(listing: Listing) -> Claim | None:
    is_code = MODEL_FILE in listing.names and not listing.model_file
    return Claim.CODE if is_code else None


ABOUT = About(
    word="python",
    backend="trivet.backends.python.backend:BACKEND",
    other_platforms=("python",),
    suffixes=(".py",),
    recognise=_recognise,
    takes_any_name=False,  # code beside a model is more often its helper
    preference=40,
    completes=frozenset(
        {
            "backend",
            "default_model_filename",
            "dynamic_batching",
            "input",
            "max_batch_size",
            "model_transaction_policy",
            "output",
        }
    ),
    fields=("default_model_filename",),
    runs_user_code=True,
    shared_imports=(),
    joins_requests=False,
    memory=Memory(weight_suffixes=(".bin", ".onnx", ".pt", ".pt2", ".safetensors")),
)

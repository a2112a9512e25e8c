"""What the backend for PyTorch models says of itself."""

from trivet.backends.api import About, Claim, Listing, Memory

MODULE_FILE = "model.py"
WEIGHT_FILES = ("model.safetensors", "model.pt")
_OTHER_CODE = "TritonPythonModel"
"""The class that a model.py defines which is no module."""


def _recognise(listing: Listing) -> Claim | None:
    """A model.py beside weights, unless it is written for the Python backend."""
    if listing.model_file and not listing.model_file.endswith(".py"):
        return None
    if MODULE_FILE not in listing.names or listing.names.isdisjoint(WEIGHT_FILES):
        return None
    if _OTHER_CODE in listing.text_of(MODULE_FILE):
        return None
    return Claim.NAMED if listing.model_file else Claim.CODE


ABOUT = About(
    word="pytorch",
    backend="trivet.backends.pytorch.backend:BACKEND",
    platform="pytorch_libtorch",
    other_platforms=("torch_aoti",),
    suffixes=(".pt2", ".pt"),
    shared_names=(MODULE_FILE,),
    recognise=_recognise,
    preference=30,
    packages=("torch",),
    install="trivet[torch]",
    completes=frozenset({"dynamic_batching", "input", "max_batch_size", "output"}),
    only_reads=True,
    fields=("default_model_filename", "optimization.cuda", "runtime"),
    parameters=(
        "DISABLE_CUDNN",
        "DISABLE_OPTIMIZED_EXECUTION",
        "ENABLE_CACHE_CLEANING",
        "INFERENCE_MODE",
        "INTER_OP_THREAD_COUNT",
        "INTRA_OP_THREAD_COUNT",
        "MODEL_CLASS_NAME",
        "NUM_INTEROP_THREADS",
        "NUM_THREADS",
        "TORCH_COMPILE_OPTIONAL_PARAMETERS",
    ),
    memory=Memory(weight_suffixes=(".pt", ".pt2", ".safetensors"), files_are_least=True),
)

"""What the backend for scikit-learn's models says of itself."""

from trivet.backends.api import About

SKOPS = ".skops"
PICKLES = (".pkl", ".pickle", ".joblib")
TRUSTED_TYPES = "trusted_types"

ABOUT = About(
    word="sklearn",
    backend="trivet.backends.sklearn.backend:BACKEND",
    suffixes=(SKOPS, *PICKLES),
    preference=60,
    packages=("skops",),
    install="trivet[sklearn]",
    completes=frozenset({"dynamic_batching", "input", "max_batch_size", "output", "parameters"}),
    fields=("default_model_filename",),
    parameters=("classes", TRUSTED_TYPES),
    runs_user_code=True,
    shared_imports=("skops.io",),  # and with it scikit-learn, which takes seconds
)

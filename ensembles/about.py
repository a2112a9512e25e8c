"""What ensembles say of themselves as the backend that they are to the server."""

from trivet.backends.api import About
from trivet.ensembles.settings import MERGE_REQUESTS, PREFIX

ABOUT = About(
    word="ensemble",
    backend="trivet.ensembles.backend:BACKEND",
    other_platforms=("ensemble",),
    config_field="ensemble_scheduling",
    completes=frozenset({"input", "max_batch_size", "model_transaction_policy", "output"}),
    fields=(),
    parameters=(MERGE_REQUESTS, f"{PREFIX}*"),
)

"""What the backend for MLflow's folders says of itself."""

from trivet.backends.api import About, Claim, Listing

MANIFEST = "MLmodel"


def _recognise(listing: Listing) -> Claim | None:
    """Before the files beside it: they are its parts."""
    return Claim.CODE if MANIFEST in listing.names and not listing.model_file else None


ABOUT = About(
    word="mlflow",
    backend="trivet.backends.mlflow.backend:BACKEND",
    names=(MANIFEST,),
    recognise=_recognise,
    preference=5,
    completes=frozenset({"dynamic_batching", "input", "max_batch_size", "output"}),
    fields=(),
    runs_user_code=True,
)

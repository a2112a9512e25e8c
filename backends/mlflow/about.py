"""What the backend for MLflow's folders says of itself."""

from trivet.backends.api import About, Claim, Listing, Match

MANIFEST = "MLmodel"


def _recognise(listing: Listing) -> Match | None:
    """Before the files beside it: they are its parts. It may lie in a folder of its own."""
    folders = listing.folders_with(MANIFEST)
    if listing.model_file or not folders:
        return None
    return Match(Claim.MANIFEST, "" if folders[0] == "." else f"{folders[0]}/{MANIFEST}")


ABOUT = About(
    word="mlflow",
    backend="trivet.backends.mlflow.backend:BACKEND",
    names=(MANIFEST,),
    recognise=_recognise,
    preference=5,
    completes=frozenset({"dynamic_batching", "input", "max_batch_size", "output"}),
    fields=("default_model_filename",),
    runs_user_code=True,
)

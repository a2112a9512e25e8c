"""What the backend for decision trees says of itself."""

from trivet.backends.api import About, Claim, Listing, Match, Memory

SHARED_NAMES = ("model.json", "model.txt")
BOOSTER = ".bst"
"""What KServe and MLServer call a booster, of XGBoost as of LightGBM."""
_XGBOOST_HEAD = '{"learner":'
_LIGHTGBM_HEAD = "tree\nversion="
GPU_PARAMETERS = (
    "algo",
    "blocks_per_sm",
    "storage_type",
    "threads_per_tree",
    "transfer_threshold",
    "use_experimental_optimizations",
)
"""Triton's, of how a GPU computes: taken, and without a meaning on a CPU."""


def is_xgboost_json(text: str) -> bool:
    """Whether a file's text begins as XGBoost's JSON does."""
    return text[:200].translate({ord(c): None for c in " \t\r\n"}).startswith(_XGBOOST_HEAD)


def is_lightgbm_text(text: str) -> bool:
    """Whether a file's text begins as LightGBM's does."""
    return text[:200].replace("\r", "").startswith(_LIGHTGBM_HEAD)


def _recognise(listing: Listing) -> Match | None:
    """By content, for the suffixes that others use, too."""
    found = [n for n in listing.ending(".json") if is_xgboost_json(listing.text_of(n))]
    found += [n for n in listing.ending(".txt") if is_lightgbm_text(listing.text_of(n))]
    if len(found) != 1:
        return None
    is_usual = found[0] in SHARED_NAMES
    return Match(Claim.FILE if is_usual else Claim.ONLY, found[0])


ABOUT = About(
    word="fil",
    backend="trivet.backends.fil.backend:BACKEND",
    suffixes=(".ubj", ".cbm", ".xgb", ".lgb", BOOSTER),
    names=("xgboost.ubj", "xgboost.json", "xgboost.model", "checkpoint.tl"),
    shared_names=SHARED_NAMES,
    recognise=_recognise,
    preference=50,
    completes=frozenset({"dynamic_batching", "input", "max_batch_size", "output", "parameters"}),
    only_reads=True,
    fields=("default_model_filename",),
    parameters=(
        *GPU_PARAMETERS,
        "classes",
        "cpu_nthread",
        "model_type",
        "output_class",
        "predict_proba",
        "threshold",
        "xgboost_allow_unknown_field",
    ),
    memory=Memory(),
)

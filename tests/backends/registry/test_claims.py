"""Whose a folder is, from names alone."""

import pytest

from trivet.backends.api import About, Claim, Listing

SAVED = About(word="saved", backend="", suffixes=(".savedmodel", ".lite"), names=("saved.pb",))


def listing(*names: str, model: str = "m", chosen: str = "") -> Listing:
    return Listing(frozenset(names), model, chosen)


@pytest.mark.parametrize(
    ("found", "claim"),
    [
        (listing("model.savedmodel"), Claim.FILE),
        (listing("other", "model.lite"), Claim.FILE),
        (listing("saved.pb"), Claim.FILE),
        (listing("other.lite"), None),
        (listing("model.saved"), Claim.WORD),
        (listing(model="m.lite"), Claim.MODEL_NAME),
        (listing(model="m.saved"), Claim.MODEL_NAME),
        (listing("model.lite", chosen="other.lite"), Claim.NAMED),
        (listing("model.lite", chosen="other.bin"), Claim.FILE),
        (listing(), None),
    ],
)
def test_names_are_claims(found: Listing, claim: Claim | None) -> None:
    assert SAVED.claim(found) is claim


def test_the_best_claim_counts() -> None:
    about = About(word="w", backend="", suffixes=(".w",), recognise=lambda found: Claim.CONTENT)

    assert about.claim(listing("model.w")) is Claim.FILE
    assert about.claim(listing("x")) is Claim.CONTENT


def test_the_usual_name_comes_first() -> None:
    assert SAVED.model_files == ("saved.pb", "model.savedmodel", "model.lite")

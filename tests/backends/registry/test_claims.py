"""Whose a folder is, from names alone."""

from pathlib import Path

import pytest

from trivet.backends.api import About, Claim, Listing, Match, ModelFiles

SAVED = About(word="saved", backend="", suffixes=(".savedmodel", ".lite"), names=("saved.pb",))


def listing(*names: str, model: str = "m", chosen: str = "") -> Listing:
    return Listing(frozenset(names), model, chosen)


@pytest.mark.parametrize(
    ("found", "claim"),
    [
        (listing("model.savedmodel"), Claim.FILE),
        (listing("other", "model.lite"), Claim.FILE),
        (listing("saved.pb"), Claim.FILE),
        (listing("other.lite"), Claim.ONLY),
        (listing("OTHER.LITE"), Claim.ONLY),
        (listing("other.lite", "more.lite"), None),
        (listing("model.saved"), Claim.WORD),
        (listing("other.lite", "more.lite", "model.lite"), Claim.FILE),
        (listing(model="m.lite"), Claim.MODEL_NAME),
        (listing(model="m.saved"), Claim.MODEL_NAME),
        (listing("model.lite", chosen="other.lite"), Claim.NAMED),
        (listing("model.lite", chosen="other.bin"), Claim.FILE),
        (listing(), None),
    ],
)
def test_names_are_claims(found: Listing, claim: Claim | None) -> None:
    match = SAVED.match(found)

    assert (match and match.claim) is claim


def test_the_best_claim_counts() -> None:
    about = About(word="w", backend="", suffixes=(".w",), recognise=lambda found: Claim.CONTENT)

    assert about.match(listing("model.w")) == Match(Claim.FILE)
    assert about.match(listing("x")) == Match(Claim.CONTENT)


def test_the_only_file_of_its_kind_is_the_model() -> None:
    assert SAVED.match(listing("net.lite", "words.txt")) == Match(Claim.ONLY, "net.lite")


def test_a_match_of_files_below_the_top_says_which() -> None:
    def recognise(found: Listing) -> Match | None:
        folders = found.folders_with("MLmodel")
        return Match(Claim.MANIFEST, folders[0]) if len(folders) == 1 else None

    about = About(word="w", backend="", recognise=recognise)
    below = Listing(frozenset({"run"}), paths=frozenset({"run/MLmodel", "run/data/m.onnx"}))
    here = Listing(frozenset({"MLmodel"}), paths=frozenset({"MLmodel"}))

    assert about.match(below) == Match(Claim.MANIFEST, "run")
    assert about.match(here) == Match(Claim.MANIFEST, ".")
    assert about.match(listing("data")) is None


def test_a_folder_is_listed_as_deep_as_models_are_told_by(tmp_path: Path) -> None:
    for name in ("a.bin", "b/c.json", "b/c/d/e.txt", "b/c/d/e/f.txt", ".git/config"):
        path = tmp_path / "m" / "1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"architectures": ["X"]}')

    found = Listing.of(ModelFiles(tmp_path / "m", 1))

    assert found.names == {"a.bin", "b"}
    assert found.paths == {"a.bin", "b/c.json", "b/c/d/e.txt"}
    assert found.json_of("b/c.json") == {"architectures": ["X"]}
    assert found.json_of("nothing.json") == {}
    assert found.head_of("a.bin").startswith(b"{")


def test_the_usual_name_comes_first() -> None:
    assert SAVED.model_files == ("saved.pb", "model.savedmodel", "model.lite")

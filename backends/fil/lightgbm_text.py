"""Whether a LightGBM text is whole. Pure.

LightGBM's own reader trusts the text: one that was cut off ends the process.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

_END = "end of trees"


class MalformedText(ValueError):
    """The text is no whole model."""


@dataclass(frozen=True, slots=True)
class LightGBMText:
    """A text that is whole."""

    header: Mapping[str, str]
    trees: str
    """What predicting needs: without the settings of the training behind the trees, at which
    LightGBM's reader ends the process, too, if they were cut off."""


def check_text(text: str) -> LightGBMText:
    """Raises MalformedText."""
    if not text.startswith("tree"):
        raise MalformedText("it does not begin with the line 'tree'")
    head, _, _ = text.partition("\nTree=")
    header = _entries(head)
    missing = [key for key in ("num_class", "max_feature_idx", "tree_sizes") if key not in header]
    if missing:
        raise MalformedText(f"its head lacks {', '.join(missing)}")
    num_trees = len(header["tree_sizes"].split())
    trees = list(_trees(text))
    if len(trees) != num_trees or _END not in text:
        raise MalformedText(
            f"it ends in the middle: its head says {num_trees} trees, and {len(trees)} are there"
            + ("" if _END in text else f", without the line '{_END}'")
        )
    num_features = _number(header, "max_feature_idx") + 1
    for place, tree in enumerate(trees):
        _check_tree(place, _entries(tree), num_features)
    if "\nparameters:" in text and "\nend of parameters" not in text:
        raise MalformedText("it ends within the parameters of its training")
    return LightGBMText(header, f"{text.partition(_END)[0]}{_END}\n\n")


def _trees(text: str) -> Iterator[str]:
    body, _, _ = text.partition(f"\n{_END}")
    for part in body.split("\nTree=")[1:]:
        yield f"Tree={part}"


def _entries(lines: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in lines.splitlines())
    return {key: value for key, equals, value in pairs if equals}


def _check_tree(place: int, tree: Mapping[str, str], num_features: int) -> None:
    """What predicting follows from node to node."""
    num_leaves = _number(tree, "num_leaves")
    if num_leaves < 1 or len(tree.get("leaf_value", "").split()) != num_leaves:
        raise MalformedText(f"tree {place} has not as many leaf values as leaves")
    if num_leaves == 1:
        return
    num_nodes = num_leaves - 1
    for key, low, high in (
        ("split_feature", 0, num_features - 1),
        ("left_child", -num_leaves, num_nodes - 1),
        ("right_child", -num_leaves, num_nodes - 1),
    ):
        values = _numbers(place, tree, key)
        if len(values) != num_nodes or values.min() < low or values.max() > high:
            raise MalformedText(
                f"tree {place} needs {num_nodes} numbers from {low} to {high} as {key}"
            )
    for key in ("threshold", "decision_type"):
        if len(tree.get(key, "").split()) != num_nodes:
            raise MalformedText(f"tree {place} needs {num_nodes} numbers as {key}")


def _number(entries: Mapping[str, str], key: str) -> int:
    try:
        return int(entries[key])
    except (KeyError, ValueError):
        raise MalformedText(f"{key} is no number") from None


def _numbers(place: int, tree: Mapping[str, str], key: str) -> np.ndarray:
    try:
        return np.array(tree.get(key, "").split(), dtype=np.int64)
    except ValueError:
        raise MalformedText(f"tree {place} has {key} that are no numbers") from None

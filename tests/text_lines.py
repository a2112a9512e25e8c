"""Pictures of lines of text, made of dots, upright and on their heads."""

import numpy as np
from example_site import REPOSITORY

LABELS = (REPOSITORY / "text_direction/labels.txt").read_text().split()

# 5 x 7 dots a letter; none of them looks alike upside down.
LETTERS = {
    "A": ("01110", "10001", "10001", "11111", "10001", "10001", "10001"),
    "E": ("11111", "10000", "10000", "11110", "10000", "10000", "11111"),
    "F": ("11111", "10000", "10000", "11110", "10000", "10000", "10000"),
    "L": ("10000", "10000", "10000", "10000", "10000", "10000", "11111"),
    "P": ("11110", "10001", "10001", "11110", "10000", "10000", "10000"),
    "R": ("11110", "10001", "10001", "11110", "10100", "10010", "10001"),
    "T": ("11111", "00100", "00100", "00100", "00100", "00100", "00100"),
    "Y": ("10001", "10001", "01010", "00100", "00100", "00100", "00100"),
}


def line(word: str) -> np.ndarray:
    """The word in black on white, FP32 [3, 48, 192], values from -1 to 1."""
    gap = np.zeros((7, 1))
    rows = [np.array([[int(dot) for dot in row] for row in LETTERS[letter]]) for letter in word]
    dots = np.concatenate([part for row in rows for part in (row, gap)], axis=1)
    ink = np.kron(dots, np.ones((4, 4)))
    page = np.zeros((48, 192))
    top, left = (48 - ink.shape[0]) // 2, (192 - ink.shape[1]) // 2
    page[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return np.stack([1 - 2 * page] * 3).astype(np.float32)


def turned(image: np.ndarray) -> np.ndarray:
    """By half a turn."""
    return np.ascontiguousarray(image[:, ::-1, ::-1])

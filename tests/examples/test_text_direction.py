"""The vision model tells upright lines from ones that stand on their heads, with labels."""

import numpy as np
import onnxruntime
import pytest
from example_site import REPOSITORY, TritonClient

OUTPUT = "save_infer_model/scale_0.tmp_1"
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


@pytest.mark.parametrize("word", ["PARTY", "RAFT", "LEAFY", "TRAPEFLY"])
def test_the_best_class_is_the_angle_of_the_line(triton: TritonClient, word: str) -> None:
    images = np.stack([line(word), turned(line(word))])
    best = triton.module.InferRequestedOutput(OUTPUT, class_count=1)

    answer = triton.infer("text_direction", {"x": images}, [best]).as_numpy(OUTPUT)

    classes = [entry.decode().split(":") for entry in answer.ravel()]
    assert [(index, label) for _, index, label in classes] == [("0", "0"), ("1", "180")]
    assert all(float(probability) > 0.9 for probability, _, _ in classes)


def test_classes_are_ranked_and_bear_the_labels_of_the_file(triton: TritonClient) -> None:
    wish = triton.module.InferRequestedOutput(OUTPUT, class_count=2)

    answer = triton.infer("text_direction", {"x": turned(line("PARTY"))[None]}, [wish])

    first, second = (entry.decode().split(":") for entry in answer.as_numpy(OUTPUT).ravel())
    assert [first[1:], second[1:]] == [["1", LABELS[1]], ["0", LABELS[0]]]
    assert float(first[0]) + float(second[0]) == pytest.approx(1, abs=1e-4)


def test_probabilities_are_those_of_the_model_file(triton: TritonClient) -> None:
    images = np.stack([line("PARTY"), turned(line("RAFT")), line("FLEA")])
    session = onnxruntime.InferenceSession(REPOSITORY / "text_direction/1/model.onnx")

    served = triton.call("text_direction", {"x": images})[OUTPUT]

    (expected,) = session.run([OUTPUT], {"x": images})
    np.testing.assert_allclose(served, expected, atol=1e-5)

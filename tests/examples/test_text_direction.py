"""The vision model tells upright lines from ones that stand on their heads, with labels."""

import numpy as np
import onnxruntime
import pytest
from example_site import REPOSITORY, TritonClient
from text_lines import LABELS, line, turned

OUTPUT = "save_infer_model/scale_0.tmp_1"


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

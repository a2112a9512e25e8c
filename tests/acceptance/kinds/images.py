"""Image classifiers of Hugging Face, answered as transformers' pipeline does."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from acceptance.kind import Kind, Prediction, model_folder


def _classifier(
    place: Path, family: str, *, version: str = "1", as_onnx: bool = False
) -> Prediction:
    """`as_onnx`: computed from an ONNX file."""
    from image_folders import LABELS, encoded, export_onnx, make_classifier, picture, predictions

    folder = make_classifier(model_folder(place, version), family)
    files = [
        encoded(picture(50, 41, 1), "JPEG"),
        encoded(picture(33, 60, 2), "PNG"),
        encoded(picture(64, 64, 3), "WEBP"),
    ]
    found = predictions(folder, files)
    if as_onnx:
        export_onnx(folder)
    scores = [[each[label] for label in LABELS] for each in found]
    best = [[max(each, key=each.__getitem__)] for each in found]
    images = np.array([[file] for file in files], dtype=object)
    outputs = {"scores": np.array(scores, np.float32), "label": np.array(best)}
    return Prediction({"image": images}, outputs)


_SHARED: dict[str, Any] = {
    "backend": "image_classifier",
    "library": "transformers",
    "extra": "encoders",
    "tolerance": 3e-5,
}
KINDS = (
    Kind(
        title="Image classifier ([more](tasks/image-classifier.md))",
        files="`config.json` of a `...ForImageClassification`, `preprocessor_config.json`, "
        "`*.safetensors`",
        make=partial(_classifier, family="convnext"),
        **_SHARED,
    ),
    Kind(
        title="Image classifier without a version folder",
        files="the same, directly in the model's folder",
        make=partial(_classifier, family="resnet", version=""),
        slow=True,
        **_SHARED,
    ),
    Kind(
        title="Image classifier as ONNX",
        files="`model.onnx` or `onnx/model.onnx` beside the two `.json` files",
        make=partial(_classifier, family="vit", as_onnx=True),
        slow=True,
        **{**_SHARED, "library": "ONNX Runtime"},
    ),
)

"""Image classifiers' folders with random weights, as transformers writes them, and image files."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

LABELS = ("cat", "dog", "trivet")
SIZES: dict[str, dict[str, Any]] = {
    "vit": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "image_size": 32,
        "patch_size": 8,
    },
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
    "convnext": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
}
PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViTImageProcessor", {"size": {"height": 32, "width": 32}}),
    "resnet": ("ConvNextImageProcessor", {"size": {"shortest_edge": 40}}),
    "convnext": ("ConvNextImageProcessor", {"size": {"shortest_edge": 400}}),
}
"""The class that real folders of the family name, and its settings. ConvNext of 384 pixels and more
makes a square of an image; smaller ones are cut out of its middle."""


def make_classifier(
    folder: Path, family: str = "vit", labels: Sequence[str] = LABELS, **config: Any
) -> Path:
    """A folder with a model of that family."""
    name, settings = PROCESSORS[family]
    getattr(transformers, name)(**settings).save_pretrained(folder)
    ids = dict(enumerate(labels))
    made = transformers.AutoConfig.for_model(
        family,
        id2label=ids,
        label2id={label: index for index, label in ids.items()},
        **SIZES[family],
        **config,
    )
    torch.manual_seed(5)
    kind: Any = transformers.AutoModelForImageClassification  # untyped
    model = kind.from_config(made)
    # Freshly made weights are so small that all images would be alike; but for those of norms.
    with torch.no_grad():
        for weight in model.parameters() if family != "resnet" else ():
            weight.mul_(4)
    model.save_pretrained(folder)
    return folder


def picture(width: int = 48, height: int = 36, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """Waves of colours: no two of them alike."""
    rows, columns = np.mgrid[0:height, 0:width] / 9.0
    waves = [np.sin(rows * (1 + seed) + shift) + np.cos(columns + seed) for shift in (0, 1, 2)]
    values = ((np.stack(waves, axis=-1) + 2) * 63.75).astype(np.uint8)
    return Image.fromarray(values).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of a file of that format."""
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def predictions(folder: Path, files: Sequence[bytes], **options: Any) -> list[dict[str, float]]:
    """What transformers' pipeline says of each: scores by label."""
    make: Any = transformers.pipeline  # typed by each task's name
    classify = make("image-classification", model=str(folder), device="cpu")
    found = [classify(Image.open(BytesIO(file)), top_k=100, **options) for file in files]
    return [{each["label"]: each["score"] for each in entries} for entries in found]


def export_onnx(folder: Path, size: int = 32) -> None:
    """model.onnx of the folder's model, in place of its weights."""
    import warnings

    model: Any = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (),
            folder / "model.onnx",
            kwargs={"pixel_values": torch.ones((2, 3, size, size))},
            output_names=["logits"],
            dynamic_shapes={"pixel_values": {0: torch.export.Dim("rows")}},
            dynamo=True,
            verbose=False,
        )
    (folder / "model.safetensors").unlink()

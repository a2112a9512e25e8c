"""Which folders are encoders'."""

from pathlib import Path

import pytest
from encoder_folders import write_json

from trivet.backends.api import InvalidConfig, ModelFiles
from trivet.backends.registry import choose_about
from trivet.protos.model_config_pb2 import ModelConfig


def backend_of(folder: Path) -> str:
    return choose_about(ModelConfig(), ModelFiles(folder.parent, 1)).word


@pytest.mark.parametrize(
    ("architecture", "family", "files", "word"),
    [
        ("BertModel", "bert", ("model.safetensors",), "encoder"),
        ("BertForMaskedLM", "bert", ("pytorch_model.bin",), "encoder"),
        ("XLMRobertaForSequenceClassification", "xlm-roberta", ("model.safetensors",), "encoder"),
        ("DistilBertForTokenClassification", "distilbert", ("model.safetensors",), "encoder"),
        ("MPNetModel", "mpnet", ("model.onnx", "tokenizer.json"), "encoder"),
        ("BertModel", "bert", ("onnx/model.onnx", "tokenizer.json"), "encoder"),
        ("BertModel", "bert", ("model.onnx",), "onnxruntime"),
        ("Qwen3ForCausalLM", "qwen3", ("model.safetensors", "modules.json"), "encoder"),
        ("Qwen3ForCausalLM", "qwen3", ("model.safetensors",), "llm"),
    ],
)
def test_a_folder_is_known_by_its_architecture(
    tmp_path: Path, architecture: str, family: str, files: tuple[str, ...], word: str
) -> None:
    folder = tmp_path / "m/1"
    write_json(folder / "config.json", {"architectures": [architecture], "model_type": family})
    for name in files:
        write_json(folder / name, [])

    assert backend_of(folder) == word


def test_other_bodies_are_nobody_s(tmp_path: Path) -> None:
    folder = tmp_path / "m/1"
    write_json(folder / "config.json", {"architectures": ["ViTModel"], "model_type": "vit"})
    write_json(folder / "model.safetensors", [])

    with pytest.raises(
        InvalidConfig, match="the architecture 'ViTModel', which no backend here knows"
    ):
        backend_of(folder)

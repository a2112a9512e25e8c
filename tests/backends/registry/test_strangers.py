"""What people put into a repository that nothing serves: a sentence names the file and the way."""

import json
from pathlib import Path

import pytest

from trivet.backends.api import InvalidConfig, Listing, ModelFiles
from trivet.backends.registry import abouts, advice, choose
from trivet.protos.model_config_pb2 import ModelConfig

ZIP = b"PK\x03\x04"


def hub(architecture: str) -> dict[str, bytes]:
    return {"config.json": json.dumps({"architectures": [architecture]}).encode()}


HUB = hub("DetrForObjectDetection")

STATIC = "sentence_transformers.sentence_transformer.modules.static_embedding.StaticEmbedding"

CASES: dict[str, tuple[dict[str, bytes], str]] = {
    "state dict": ({"net.pth": ZIP}, "'net.pth' was saved by torch.save.*model.py beside weights"),
    "checkpoint": ({"last.ckpt": ZIP}, "'last.ckpt' was saved by torch.save.*torch.export.save"),
    "pytorch_model.bin": ({"pytorch_model.bin": ZIP}, "was saved by torch.save"),
    "pickled weights of a hub model": (
        HUB | {"pytorch_model.bin": ZIP},
        "'pytorch_model.bin' holds the weights of 'Detr.*safe_serialization=True",
    ),
    "safetensors alone": (
        {"model.safetensors": b""},
        "'model.safetensors' holds weights, and nothing says of what; put the model's config.json",
    ),
    "static embeddings": (
        {
            "modules.json": json.dumps([{"idx": 0, "path": "", "type": STATIC}]).encode(),
            "config_sentence_transformers.json": b"{}",
            "model.safetensors": b"",
            "tokenizer.json": b"{}",
        },
        "'modules.json' is of sentence-transformers and begins with 'StaticEmbedding'.*model.py",
    ),
    "modules that are none": (
        {"modules.json": b"[3]", "model.safetensors": b""},
        "'model.safetensors' holds weights, and nothing says of what",
    ),
    "unknown architecture": (
        HUB | {"model.safetensors": b""},
        "architecture 'DetrForObjectDetection', which no backend here knows; export it",
    ),
    "speech": (
        hub("WhisperForConditionalGeneration") | {"model.safetensors": b""},
        "'WhisperForConditionalGeneration', which reads or makes speech.*not offered; serve it by",
    ),
    "a recogniser": (hub("Wav2Vec2BertForCTC"), "speech"),
    "hub folder without weights": (HUB, "its weights are not there; put .*safetensors"),
    "model.bin": ({"model.bin": b"\x00\x01\xff"}, "'model.bin' may be of any framework"),
    "a text called model.bin": ({"model.bin": b"hello"}, "any framework \\(a text file\\)"),
    "core ml": ({"net.mlmodel": b""}, "'net.mlmodel' is a Core ML model.*torch.onnx.export"),
    "core ml package": ({"net.mlpackage/Manifest.json": b"{}"}, "is a Core ML model"),
    "diffusers": (
        {"model_index.json": b'{"_class_name": "StableDiffusionPipeline"}', "unet/a.bin": b""},
        "diffusers pipeline \\(StableDiffusionPipeline\\).*model.py",
    ),
    "adapter": (
        {
            "adapter_config.json": b'{"base_model_name_or_path": "org/base"}',
            "adapter_model.safetensors": b"",
        },
        "adapter \\(LoRA\\) for 'org/base'.*merge_and_unload",
    ),
    "zip": ({"model.zip": ZIP}, "'model.zip' is an archive; unpack it"),
    "tar": ({"model.tar.gz": b"\x1f\x8b"}, "'model.tar.gz' is an archive; unpack it"),
    "compressed pickle": ({"model.pkl.gz": b"\x1f\x8b"}, "'model.pkl.gz' is a compressed pickle"),
    "torchserve": ({"net.mar": ZIP}, "'net.mar' is TorchServe's archive; unpack it"),
    "several": ({"a.onnx": b"", "b.onnx": b""}, "'a.onnx', 'b.onnx' are several models"),
    "several gguf": ({"a.gguf": b"", "b.gguf": b""}, "2 GGUF models \\('a.gguf', 'b.gguf'\\)"),
    "paddle": ({"net.pdmodel": b""}, "paddle2onnx"),
    "a hub's cache": (
        {"blobs/0a": b"", "refs/main": b"0a", "snapshots/0a/config.json": b"{}"},
        "'snapshots' is of the cache of huggingface_hub; serve .*hf://ORG/NAME, or .*hf download",
    ),
    "settings of MLServer": (
        {"model-settings.json": b'{"implementation": "mlserver_huggingface.HuggingFaceRuntime"}'},
        "'model-settings.json' is MLServer's and not read here.*under its own name",
    ),
    "tokenizer": ({"tokenizer.json": b"{}"}, "'tokenizer.json' is a tokenizer, and its model"),
    "a version in other words": ({"v2/model.onnx": b""}, "'v2' looks like a version.*name that"),
    "anything": ({"a.foo": b"", "b.bar": b""}, "\\(there is 'a.foo', 'b.bar'\\).*model.onnx"),
    "nothing": ({}, "no config names its backend and no file tells it \\(there is no file\\)"),
}


def files_with(folder: Path, files: dict[str, bytes]) -> ModelFiles:
    for name, content in files.items():
        path = folder / "m" / "1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return ModelFiles(folder / "m", 1)


@pytest.mark.parametrize("case", CASES)
def test_a_sentence_names_the_file_and_what_to_do(tmp_path: Path, case: str) -> None:
    files, text = CASES[case]

    with pytest.raises(InvalidConfig, match=rf"^model 'm' version 1: .*{text}") as refused:
        choose(ModelConfig(), files_with(tmp_path, files))
    assert "square" not in refused.value.message, "no backend for tests is offered"


@pytest.mark.parametrize("name", ["notes.foo", "README.md", "labels.txt"])
def test_what_might_be_anything_is_not_called_a_model(tmp_path: Path, name: str) -> None:
    listing = Listing.of(files_with(tmp_path, {name: b""}))

    assert advice(listing, abouts().values(), is_sure=True) == ""

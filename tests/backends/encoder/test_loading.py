"""What is settled, or refused, before an encoder computes anything."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from encoder_folders import make_encoder, write_json
from encoder_site import open_encoder
from fake_nvml import FakeNvml

from trivet.backends.api import LoadFailed
from trivet.backends.api.encoder import EncoderInfo
from trivet.backends.device.nvml import Gpus
from trivet.backends.registry import find_backend
from trivet.server.models.gpu_memory import GpuLedger
from trivet.server.models.loader import Loader
from trivet.server.repository.layout import ModelFolder


def change_config(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    write_json(path, {**orjson.loads(path.read_bytes()), **fields})


def prepared_info(folder: Path, config: str) -> EncoderInfo:
    """Of a version folder on a machine with GPUs."""
    (folder.parent / "config.pbtxt").write_text(config)
    model = ModelFolder(folder.parent.name, folder.parent, (), {1: ()})
    catalog: Any = None
    loader = Loader(catalog, gpus=GpuLedger(Gpus.find(FakeNvml(), {})))
    plan = loader.plan(model, None)
    files = model.files(1)
    info = EncoderInfo.of(loader.prepare(plan, files, find_backend(plan.given, files)).config)
    assert info is not None
    return info


def test_a_config_tells_what_its_instances_compute_with_where_they_are(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "m/1")
    change_config(folder, dtype="bfloat16")
    on_cpu = prepared_info(folder, "instance_group { kind: KIND_CPU }")
    on_gpu = prepared_info(folder, "instance_group { kind: KIND_GPU }")
    told = prepared_info(
        folder,
        'instance_group { kind: KIND_GPU } parameters { key: "dtype" value { string_value: '
        '"float16" } } parameters { key: "max_batch_tokens" value { string_value: "900" } }',
    )
    assert (on_cpu.batch_tokens, on_cpu.dtype) == (512, "float32")
    assert (on_gpu.batch_tokens, on_gpu.dtype) == (16_384, "bfloat16")
    assert (told.batch_tokens, told.dtype) == (900, "float16")


def test_a_tokenizer_of_more_tokens_than_the_model_has_is_refused(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "m/1")
    change_config(folder, vocab_size=60)
    with pytest.raises(LoadFailed, match=r"knows \d+ tokens, but the model only 60 \(vocab_size"):
        open_encoder(folder)

"""The example model in the forms that other servers read, in bfloat16 like ours."""

import json
from pathlib import Path
from typing import Any

FILE_TYPES = {"BF16": 32, "F16": 1, "Q4_0": 2, "Q4_1": 3}
"""GGUF's numbers for files that are mostly of a type."""


def hub_folder(source: Path, target: Path) -> Path:
    """A Hugging Face folder of a GGUF file, for vLLM."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    target.mkdir(parents=True, exist_ok=True)
    arguments: dict[str, Any] = {"gguf_file": source.name}
    model: Any = AutoModelForCausalLM.from_pretrained(
        source.parent, dtype=torch.bfloat16, **arguments
    )
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    weights.pop("lm_head.weight")  # tied to the embedding
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict() | {"architectures": ["LlamaForCausalLM"]}
    config.pop("quantization_config", None)
    (target / "config.json").write_text(json.dumps(config, default=str))
    tokenizer: Any = AutoTokenizer.from_pretrained(source.parent, **arguments)
    tokenizer.save_pretrained(target)
    return target


def gguf_in(kind: str, source: Path, target: Path) -> Path:
    """The same GGUF file with its matrices in a type of FILE_TYPES: "BF16" for llama.cpp, "F16" for
    OpenVINO."""
    from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
    from gguf.quants import dequantize, quantize

    reader = GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = GGUFWriter(target, str(architecture))
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        outer = field.types[0]
        element = field.types[-1] if outer == GGUFValueType.ARRAY else None
        value = FILE_TYPES[kind] if name == "general.file_type" else field.contents()
        writer.add_key_value(name, value, outer, element)
    for tensor in reader.tensors:
        numbers = dequantize(tensor.data, tensor.tensor_type)
        if len(tensor.shape) == 1:
            writer.add_tensor(tensor.name, numbers)
        else:
            chosen = GGMLQuantizationType[kind]
            writer.add_tensor(tensor.name, quantize(numbers, chosen), raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target

"""Models from disk: what is read is what was written; what cannot be read is refused by name."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from gguf import GGMLQuantizationType as Kind
from gguf_files import trained, write_gguf
from tokenizers import pre_tokenizers
from torch import Tensor
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from trivet.backends.api import LoadFailed
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.kinds import RmsNorm, Rope, RopeScaling
from trivet.backends.llm.families.registry import from_hub
from trivet.backends.llm.matrices.matrix import Stored
from trivet.backends.llm.models.rotary import rotary_table
from trivet.backends.llm.models.torch_decoder import TorchDecoder
from trivet.backends.llm.weights.documents import load_tokenizer_files
from trivet.backends.llm.weights.files import load_model
from trivet.backends.llm.weights.taking import Weights

HIDDEN, INNER, HEADS, KEY_HEADS, HEAD_SIZE, LAYERS, VOCABULARY = 64, 96, 4, 2, 16, 2, 380
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KEY_HEADS,
    "head_dim": HEAD_SIZE,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "eos_token_id": 1,
}
GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def random_model(family: str, **changes: Any) -> Any:
    """Of transformers."""
    config = getattr(transformers, f"{family}Config")(**(SHAPE | changes))
    torch.manual_seed(2)
    return getattr(transformers, f"{family}ForCausalLM")(config)


def save(model: Any, folder: Path, **options: Any) -> Path:
    """As transformers writes it, with a tokenizer beside it."""
    model.save_pretrained(folder, **options)
    tokenizers.Tokenizer(tokenizers.models.BPE()).save(str(folder / "tokenizer.json"))
    return folder


def edit_config(folder: Path, **changes: Any) -> None:
    """Changes keys of config.json; None removes one."""
    path = folder / "config.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small Llama."""
    return save(random_model("Llama"), tmp_path / "model")


def refusal(path: Path) -> str:
    """Why a model is not loaded; says nothing of where it lies."""
    with pytest.raises(LoadFailed) as caught:
        load_model(path, torch.float32)
    assert str(path.parent) not in str(caught.value)
    return str(caught.value)


# -- Hugging Face folders --------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["Llama", "Mistral", "Qwen2", "Qwen3"])
def test_folder_gives_the_weights_that_were_saved(family: str, tmp_path: Path) -> None:
    model = random_model(family)
    config, weights, _ = load_model(save(model, tmp_path), torch.float32)
    assert config == from_hub(model.config.to_dict() | {"architectures": [f"{family}ForCausalLM"]})
    assert_same(weights, model.state_dict())


def test_shards_are_put_together(tmp_path: Path) -> None:
    model = random_model("Llama")
    save(model, tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    _, weights, _ = load_model(tmp_path, torch.float32)
    assert_same(weights, model.state_dict())


def test_weights_get_the_type_that_is_asked_for(folder: Path) -> None:
    _, weights, _ = load_model(folder, torch.bfloat16)
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}


def test_tied_head_is_not_looked_for(tmp_path: Path) -> None:
    save(random_model("Llama", tie_word_embeddings=True), tmp_path)
    config, weights, _ = load_model(tmp_path, torch.float32)
    assert config.ties_embeddings
    assert "lm_head.weight" not in weights


def test_config_of_transformers_before_version_5_is_understood() -> None:
    config = from_hub(
        {
            **SHAPE,
            "architectures": ["LlamaForCausalLM"],
            "rope_theta": 500_000.0,
            "rope_scaling": {
                "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
            },
        }
    )  # fmt: skip
    scaling = RopeScaling("llama3", 32.0, 1.0, 4.0, 8192)
    assert config.attention.rope == Rope(500_000.0, scaling)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "'MambaForCausalLM'; supported are"),
        ({"architectures": None}, "supported are"),
        ({"hidden_size": None}, "config.json has no 'hidden_size'"),
        ({"rms_norm_eps": None}, "config.json has no 'rms_norm_eps'"),
        ({"hidden_act": "tanh"}, "hidden_act 'tanh'; supported are gelu, "),
        ({"hidden_size": "64"}, "hidden_size '64'; it must be a whole number above 0"),
        ({"rms_norm_eps": True}, "rms_norm_eps True; it must be a number"),
        ({"attention_bias": "no"}, "attention_bias 'no'; it must be true or false"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        ({"num_key_value_heads": 3}, "no multiple of num_key_value_heads 3"),
        (
            {"rope_parameters": {"rope_type": "axial", "factor": 4.0}},
            "rope scaling 'axial' is not supported; dynamic, linear, llama3, longrope, yarn are",
        ),
        (
            {"use_sliding_window": True, "sliding_window": 8, "layer_types": ["full_attention"],
             "architectures": ["Qwen2ForCausalLM"]},
            "it must be a list of ",
        ),
        (
            {"use_sliding_window": True, "sliding_window": 8,
             "layer_types": ["linear_attention"] * SHAPE["num_hidden_layers"],
             "architectures": ["Qwen2ForCausalLM"]},
            "layer_types with 'linear_attention' for layer 0",
        ),
    ],
)  # fmt: skip
def test_config_of_another_kind_is_refused(
    folder: Path, changes: dict[str, Any], reason: str
) -> None:
    edit_config(folder, **changes)
    assert reason in refusal(folder)


def test_folder_without_config_is_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert "'config.json' cannot be read" in refusal(folder)


def test_config_that_is_no_json_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    assert "'config.json' cannot be read as JSON" in refusal(folder)


def test_config_that_is_no_object_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text("[1]")
    assert "'config.json'" in refusal(folder)


def test_pickled_weights_are_not_read(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "'model.safetensors' cannot be read" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("pytorch_model.bin", "'pytorch_model.bin', a pickle, which could run code"),
        ("consolidated.00.pth", "'consolidated.00.pth', a pickle"),
        ("tf_model.h5", "weights of TensorFlow"),
        ("weights.safetensors", "call it 'model.safetensors'"),
    ],
)
def test_weights_of_another_kind_are_named(folder: Path, name: str, advice: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    assert advice in refusal(folder)


def test_quantisation_that_cannot_be_read_is_named(folder: Path) -> None:
    edit_config(folder, quantization_config={"quant_method": "eetq", "bits": 8})
    assert "the weights are quantised by 'eetq'" in refusal(folder)


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes"])
def test_weights_that_are_not_packed_as_the_config_says_are_refused(
    folder: Path, method: str
) -> None:
    edit_config(folder, quantization_config={"quant_method": method, "bits": 4})
    assert f"packed as config.json says (quantization_config, quant_method '{method}')" in refusal(
        folder
    )


@pytest.mark.parametrize("size", [0, 4, 200, -1])
def test_cut_weights_are_refused(folder: Path, size: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert "'model.safetensors' cannot be read" in refusal(folder)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/hostname", "a/b.safetensors"])
def test_index_that_names_files_elsewhere_is_refused(folder: Path, name: str) -> None:
    index = {"weight_map": {"model.norm.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "which is no file of the folder" in refusal(folder)


@pytest.mark.parametrize("index", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_index_of_another_form_is_refused(folder: Path, index: str) -> None:
    (folder / "model.safetensors.index.json").write_text(index)
    assert "model.safetensors.index.json" in refusal(folder)


def test_missing_shard_is_named(folder: Path) -> None:
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "'model-00001-of-00002.safetensors' cannot be read" in refusal(folder)


# -- GGUF ------------------------------------------------------------------------------------------


def gguf_metadata(architecture: str) -> dict[str, Any]:
    """Of SHAPE."""
    return {
        f"{architecture}.block_count": LAYERS,
        f"{architecture}.context_length": 128,
        f"{architecture}.embedding_length": HIDDEN,
        f"{architecture}.feed_forward_length": INNER,
        f"{architecture}.attention.head_count": HEADS,
        f"{architecture}.attention.head_count_kv": KEY_HEADS,
        f"{architecture}.attention.key_length": HEAD_SIZE,
        f"{architecture}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{architecture}.rope.freq_base": 10_000.0,
        **trained(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    }


def gguf_tensors(
    architecture: str, weights: dict[str, Tensor], kind: Kind = Kind.F32
) -> dict[str, tuple[np.ndarray[Any, Any], Kind]]:
    """As llama.cpp's converter writes them; vectors stay float32."""
    tensors = {}
    for name, weight in weights.items():
        stem, ending = name.rsplit(".", 1)
        values = weight.detach().numpy()
        if architecture == "llama" and stem.endswith(("q_proj", "k_proj")):
            values = permuted(values, HEADS if stem.endswith("q_proj") else KEY_HEADS)
        parts = stem.split(".", 3)
        renamed = (
            f"blk.{parts[2]}.{GGUF_NAMES[parts[3]]}" if "layers" in parts else GGUF_NAMES[stem]
        )
        tensors[f"{renamed}.{ending}"] = values, kind if values.ndim == 2 else Kind.F32
    return tensors


def permuted(values: np.ndarray[Any, Any], num_heads: int) -> np.ndarray[Any, Any]:
    """What llama.cpp's converter does to the queries and keys of Llama."""
    half = values.shape[0] // num_heads // 2
    shape = (num_heads, 2, half, *values.shape[1:])
    return np.ascontiguousarray(values.reshape(shape).swapaxes(1, 2).reshape(values.shape))


def write_model(
    path: Path,
    family: str = "Llama",
    kind: Kind = Kind.F32,
    metadata: dict[str, Any] | None = None,
    extra: dict[str, Any] | None = None,
    **changes: Any,
) -> Any:
    """A GGUF file, and the model of transformers that it holds."""
    model = random_model(family, **changes)
    architecture = family.lower()
    values = gguf_metadata(architecture) | (metadata or {})
    values = {name: value for name, value in values.items() if value is not None}
    tensors = gguf_tensors(architecture, model.state_dict(), kind) | (extra or {})
    if changes.get("tie_word_embeddings"):
        del tensors["output.weight"]
    write_gguf(path, architecture, values, tensors)
    return model


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("Llama", {}),
        ("Llama", {"attention_bias": True}),
        ("Llama", {"tie_word_embeddings": True}),
        ("Qwen2", {}),
        ("Qwen3", {}),
    ],
)
def test_gguf_gives_what_the_folder_gives(
    tmp_path: Path, family: str, changes: dict[str, Any]
) -> None:
    path = tmp_path / "model.gguf"
    model = write_model(path, family, **changes)
    config, weights, files = load_model(path, torch.float32)
    # float32 in the file.
    assert config.norm.eps == pytest.approx(1e-5)
    hub = from_hub(model.config.to_dict() | {"architectures": [f"{family}ForCausalLM"]})
    assert describe(config) == describe(hub)
    assert_same(weights, model.state_dict())
    assert files.eos_token_ids == (1,)


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        (Kind.F16, 2**-11),
        (Kind.BF16, 2**-8),
        (Kind.Q8_0, 1 / 127),
        (Kind.Q5_0, 1 / 8),
        (Kind.Q4_0, 1 / 4),
        (Kind.Q4_1, 1 / 7),
    ],
)
def test_quantised_weights_are_within_a_step_of_the_originals(
    tmp_path: Path, kind: Kind, step: float
) -> None:
    path = tmp_path / "model.gguf"
    model = write_model(path, kind=kind)
    _, weights, _ = load_model(path, torch.float32)
    for name, original in model.state_dict().items():
        bound = step * original.abs().max() if original.ndim == 2 else 0
        assert (numbers_of(weights[name]) - original).abs().max() <= bound, name


def test_llama3_scaling_in_gguf_is_the_one_of_its_config() -> None:
    rope = {
        "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
    }  # fmt: skip
    hub = random_model("Llama", rope_parameters=rope).config
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](hub, torch.device("cpu"))
    plain = 1 / 10_000.0 ** (torch.arange(0, HEAD_SIZE, 2) / HEAD_SIZE)
    values = from_hub(hub.to_dict() | {"architectures": ["LlamaForCausalLM"]})
    unscaled = from_hub(SHAPE | {"architectures": ["LlamaForCausalLM"]})
    wanted = rotary_table(values.attention, 128, torch.float32)
    found = rotary_table(unscaled.attention, 128, torch.float32, plain / scaled)
    other = rotary_table(unscaled.attention, 128, torch.float32)
    assert not torch.allclose(wanted[0], other[0], atol=0.01)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_llama3_divisors_of_a_gguf_file_turn_its_table(tmp_path: Path) -> None:
    divisors = np.linspace(1.0, 8.0, HEAD_SIZE // 2, dtype=np.float32)
    path = tmp_path / "model.gguf"
    write_model(path, extra={"rope_freqs.weight": (divisors, Kind.F32)})
    config, weights, _ = load_model(path, torch.bfloat16)
    # bfloat16 would move the angle of position 127 by a quarter of a radian.
    read = weights["rope_freqs.weight"]
    assert isinstance(read, Tensor)
    assert read.tolist() == divisors.tolist()
    assert build(config, weights)


def test_tensor_of_another_shape_of_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    router = np.ones((4, HIDDEN), dtype=np.float32)
    write_model(path, extra={"blk.0.ffn_gate_inp.weight": (router, Kind.F32)})
    config, weights, _ = load_model(path, torch.float32)
    with pytest.raises(LoadFailed, match=r"'blk\.0\.ffn_gate_inp\.weight'"):
        build(config, weights)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        (
            {"general.architecture": "mamba"},
            "architecture is 'mamba'; supported are ['bloom', 'cohere2', ",
        ),
        ({"llama.block_count": None}, "the GGUF file has no 'llama.block_count'"),
        ({"llama.rope.dimension_count": 8}, "rotate a part of each head only"),
        ({"llama.rope.scaling.type": "longrope"}, "'longrope' is not supported in GGUF"),
        ({"llama.rope.scaling.type": "linear"}, "has no 'llama.rope.scaling.factor'"),
        ({"tokenizer.ggml.model": "bert"}, "tokenizer is of kind 'bert'"),
        ({"tokenizer.ggml.pre": "kimi-k2"}, "pre-tokenizer 'kimi-k2' (tokenizer.ggml.pre) is"),
        ({"llama.attention.scale": 0.5}, "llama.attention.scale 0.5, which is not known"),
        ({"tokenizer.ggml.merges": None}, "has no 'tokenizer.ggml.merges'"),
        ({"tokenizer.ggml.eos_token_id": None}, "has no 'tokenizer.ggml.eos_token_id'"),
        ({"tokenizer.ggml.eos_token_id": 999_999}, "token 999999"),
    ],
)
def test_gguf_of_another_kind_is_refused(
    tmp_path: Path, metadata: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "model.gguf"
    other = metadata.pop("general.architecture", None)
    if other is None:
        write_model(path, metadata=metadata)
    else:
        write_gguf(path, other, gguf_metadata("llama"), {})
    assert reason in refusal(path)


def empty(content: bytes) -> bytes:
    return b""


def other_magic(content: bytes) -> bytes:
    return b"GGML" + content[4:]


def cut_header(content: bytes) -> bytes:
    return content[:20]


def cut_metadata(content: bytes) -> bytes:
    return content[:3000]


def cut_tensors(content: bytes) -> bytes:
    return content[:-5000]


def endless_metadata(content: bytes) -> bytes:
    return content[:16] + (2**40).to_bytes(8, "little") + content[24:]


@pytest.mark.parametrize(
    "spoil", [empty, other_magic, cut_header, cut_metadata, cut_tensors, endless_metadata]
)
def test_spoilt_gguf_is_refused(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "model.gguf"
    write_model(path)
    path.write_bytes(spoil(path.read_bytes()))
    assert "'model.gguf' is no readable GGUF file" in refusal(path)


def test_missing_gguf_is_refused(tmp_path: Path) -> None:
    assert "'model.gguf' is no readable GGUF file" in refusal(tmp_path / "model.gguf")


def test_tokenizer_alone_is_that_of_the_model(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_model(path)
    assert load_tokenizer_files(path) == load_model(path, torch.float32)[2]


def assert_same(found: Mapping[str, Stored], wanted: dict[str, Tensor]) -> None:
    """Bit for bit; a tied head need not be there."""
    assert wanted.keys() - found.keys() <= {"lm_head.weight"}
    assert found.keys() <= wanted.keys()
    for name, weight in found.items():
        assert torch.equal(numbers_of(weight), wanted[name]), name


def numbers_of(weight: Stored) -> Tensor:
    return weight if isinstance(weight, Tensor) else weight.expanded()


def describe(config: LlmConfig) -> LlmConfig:
    """All but what the two forms of files round differently."""
    norm = RmsNorm(1.0)
    layers = []
    for layer in config.layers:
        head_norm = norm if layer.attention.head_norm else None
        layers.append(replace(
            layer, norm=norm, attention=replace(layer.attention, head_norm=head_norm)
        ))  # fmt: skip
    return replace(config, norm=norm, layers=tuple(layers))


def build(config: LlmConfig, weights: Mapping[str, Stored]) -> TorchDecoder:
    """A model that is only built."""
    cache = KvCache(config, 2, 16, weights["model.norm.weight"].dtype)
    return TorchDecoder(Weights(weights, config), TorchAttention(cache, config.attentions))

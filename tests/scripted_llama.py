"""A small Llama folder whose next token is fixed by the last: a test writes what the real engine is
to say.

One layer adds nothing, so the last token's embedding alone reaches the output matrix, which names
the token that follows. A token can follow one other only: scripts share no token.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

EOS = 256
"""Bytes are tokens 0 to 255."""
HEAD_SIZE = 64
CONFIG = """backend: "llm"
parameters { key: "dtype" value { string_value: "float32" } }
parameters { key: "kv_cache_bytes" value { string_value: "33554432" } }
parameters { key: "num_threads" value { string_value: "1" } }
parameters { key: "max_num_seqs" value { string_value: "8" } }
"""

Script = Sequence[str | int]
"""Pieces of one token each: a text, or a number for a byte."""


def write_script(
    folder: Path,
    scripts: Sequence[Script] = (),
    *,
    otherwise: int | None = None,
    chat_template: str = "",
    tokenizer_config: Mapping[str, Any] | None = None,
    num_spare_tokens: int = 0,
    marks: Collection[str] = (),
    is_gpt_oss: bool = False,
) -> Path:
    """A folder of Hugging Face's form. The prompt `<s0>` starts the first script. `otherwise`: the
    token that is taken where a grammar forbids the scripted one. `num_spare_tokens`: which the
    model has and its tokenizer.json has not. `marks`: texts that are special tokens.
    `is_gpt_oss`: it is none of Llama's, but of gpt-oss, whose experts add nothing either."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = byte_tokenizer(scripts, marks)
    following = _following(tokenizer, scripts) + [EOS] * num_spare_tokens
    hidden = -(-len(following) // HEAD_SIZE) * HEAD_SIZE
    weights = _weights(following, hidden, otherwise)
    if is_gpt_oss:
        weights = _as_gpt_oss(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    config = _config(len(following), hidden)
    _write(folder / "config.json", config | _GPT_OSS if is_gpt_oss else config)
    told = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>"}
    told |= {"chat_template": chat_template} if chat_template else {}
    _write(folder / "tokenizer_config.json", told | dict(tokenizer_config or {}))
    return folder


def write_scripted_llm(
    repository: Path, name: str, scripts: Sequence[Script] = (), **more: Any
) -> Path:
    """The same as a model of a repository."""
    write_script(repository / name / "1", scripts, **more)
    (repository / name / "config.pbtxt").write_text(CONFIG)
    return repository / name


def bytes_of(text: str) -> list[int]:
    """Pieces of one byte each."""
    return list(text.encode())


def byte_letters() -> list[str]:
    """The letters that stand for bytes in GPT-2's vocabularies, in the bytes' order."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte if byte in shown else 256 + hidden.index(byte)) for byte in range(256)]


def byte_tokenizer(scripts: Sequence[Script] = (), marks: Collection[str] = ()) -> Any:
    """Each byte is a token, and so is each text of the scripts; marks are special."""
    vocabulary = {letter: byte for byte, letter in enumerate(byte_letters())}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<eos>", special=True)])
    texts = [f"<s{number}>" for number in range(len(scripts))]
    texts += [piece for script in scripts for piece in script if isinstance(piece, str)]
    tokenizer.add_special_tokens([AddedToken(mark, special=True) for mark in marks])
    texts = [text for text in texts if text not in marks]
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in texts])
    return tokenizer


def _following(tokenizer: Any, scripts: Sequence[Script]) -> list[int]:
    following = [EOS] * tokenizer.get_vocab_size()
    used: set[int] = set()
    for number, script in enumerate(scripts):
        last = tokenizer.token_to_id(f"<s{number}>")
        for piece in script:
            token = tokenizer.token_to_id(piece) if isinstance(piece, str) else piece
            assert token not in used, f"{piece!r} of script {number} is in two places"
            used.add(token)
            following[last] = last = token
    return following


def _weights(following: Sequence[int], hidden: int, otherwise: int | None) -> dict[str, Tensor]:
    size, inner = len(following), HEAD_SIZE
    head = torch.zeros(size, hidden)
    if otherwise is not None:
        head[otherwise] = 1.0
    head[torch.tensor(following), torch.arange(size)] = 2.0
    layer = "model.layers.0."
    weights = {
        "model.embed_tokens.weight": torch.eye(size, hidden),
        "model.norm.weight": torch.ones(hidden),
        "lm_head.weight": head,
        f"{layer}input_layernorm.weight": torch.ones(hidden),
        f"{layer}post_attention_layernorm.weight": torch.ones(hidden),
        f"{layer}mlp.gate_proj.weight": torch.zeros(inner, hidden),
        f"{layer}mlp.up_proj.weight": torch.zeros(inner, hidden),
        f"{layer}mlp.down_proj.weight": torch.zeros(hidden, inner),
    }
    for name in "qkvo":
        weights[f"{layer}self_attn.{name}_proj.weight"] = torch.zeros(hidden, hidden)
    return weights


_NUM_EXPERTS = 2
_GPT_OSS: dict[str, Any] = {
    "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "head_dim": HEAD_SIZE,
    "num_local_experts": _NUM_EXPERTS, "num_experts_per_tok": 1, "sliding_window": 16,
    "layer_types": ["sliding_attention"], "attention_bias": True, "swiglu_limit": 7.0,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}  # fmt: skip


def _as_gpt_oss(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    layer, inner = "model.layers.0.", HEAD_SIZE
    hidden = weights["model.norm.weight"].shape[0]
    found = {name: weight for name, weight in weights.items() if ".mlp." not in name}
    for name in "qkvo":
        found[f"{layer}self_attn.{name}_proj.bias"] = torch.zeros(hidden)
    found[f"{layer}self_attn.sinks"] = torch.zeros(hidden // HEAD_SIZE)
    shapes = {
        "router.weight": (hidden,), "router.bias": (), "experts.gate_up_proj": (hidden, 2 * inner),
        "experts.gate_up_proj_bias": (2 * inner,), "experts.down_proj": (inner, hidden),
        "experts.down_proj_bias": (hidden,),
    }  # fmt: skip
    for name, shape in shapes.items():
        found[f"{layer}mlp.{name}"] = torch.zeros(_NUM_EXPERTS, *shape)
    return found


def _config(vocabulary_size: int, hidden: int) -> dict[str, Any]:
    heads = hidden // HEAD_SIZE
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "float32",
        "hidden_size": hidden, "intermediate_size": HEAD_SIZE, "num_hidden_layers": 1,
        "num_attention_heads": heads, "num_key_value_heads": heads,
        "vocab_size": vocabulary_size, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False, "eos_token_id": EOS,
    }  # fmt: skip


def _write(path: Path, document: object) -> None:
    path.write_text(json.dumps(document))

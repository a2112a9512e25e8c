"""Language models: a Hugging Face folder and GGUF, answered as transformers does."""

from base64 import b64encode
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from acceptance.kind import MODEL, Array, Kind, Prediction, model_folder
from serving import RunningServer

PROMPT = "the there their then"
NUM_TOKENS = 8


def _hub_folder(place: Path) -> Prediction:
    from paged_models import save_model

    return _predicted(save_model(model_folder(place, "")))


def _without_family(place: Path) -> Prediction:
    """Short convolutions between attentions, which transformers' class computes."""
    import torch
    import transformers
    from paged_models import made_random, save_tokenizer

    config = transformers.Lfm2Config(
        vocab_size=400, hidden_size=48, intermediate_size=80, num_hidden_layers=4, eos_token_id=1,
        num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=256,
        layer_types=["conv", "full_attention", "conv", "full_attention"],
    )  # fmt: skip
    folder = model_folder(place, "")
    torch.manual_seed(7)
    made_random(transformers.Lfm2ForCausalLM(config)).save_pretrained(folder)
    save_tokenizer(folder)
    return _predicted(folder)


def _gguf(place: Path, *, path: str, tensors_per_part: int = 0) -> Prediction:
    """The file that llama.cpp's converter makes of a folder, in float32."""
    import gguf
    from gguf_files import trained, write_gguf
    from paged_models import SHAPE, random_model
    from tokenizers import pre_tokenizers

    from trivet.backends.llm.families.described import Described
    from trivet.backends.llm.text.gguf_tokenizer import gguf_tokenizer

    tokens = trained(pre_tokenizers.ByteLevel(add_prefix_space=False))
    vocabulary_size = len(tokens["tokenizer.ggml.tokens"])
    model = random_model(
        "Qwen3", {"num_hidden_layers": 2, "vocab_size": vocabulary_size, "head_dim": 8}
    )
    shape = model.config
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, shape.num_hidden_layers)
    tensors = {
        str(names.get_name(name, (".weight", ".bias"))): (
            value.numpy(),
            gguf.GGMLQuantizationType.F32,
        )
        for name, value in model.state_dict().items()
    }
    metadata = {
        "qwen3.block_count": shape.num_hidden_layers,
        "qwen3.context_length": shape.max_position_embeddings,
        "qwen3.embedding_length": shape.hidden_size,
        "qwen3.feed_forward_length": shape.intermediate_size,
        "qwen3.attention.head_count": shape.num_attention_heads,
        "qwen3.attention.head_count_kv": shape.num_key_value_heads,
        "qwen3.attention.key_length": shape.head_dim,
        "qwen3.attention.layer_norm_rms_epsilon": shape.rms_norm_eps,
        "qwen3.rope.freq_base": float(SHAPE["rope_theta"]),
        **tokens,
    }
    target = place / path
    target.parent.mkdir(parents=True, exist_ok=True)
    write_gguf(target, "qwen3", metadata, tensors, tensors_per_part=tensors_per_part)
    folder = place.parent / "hub"
    model.config.eos_token_id = 1
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(gguf_tokenizer(Described(tokens, "a file")).json)
    return _predicted(folder)


def _predicted(folder: Path) -> Prediction:
    """The greedy continuation by transformers, in the arithmetic that the engine has on a CPU."""
    import tokenizers
    import torch
    import transformers

    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompt = tokenizer.encode(PROMPT).ids
    made = model.generate(
        torch.tensor([prompt]), max_new_tokens=NUM_TOKENS, do_sample=False, pad_token_id=1
    )[0, len(prompt) :]
    text = tokenizer.decode(made.tolist())
    return Prediction({"prompt": np.array(PROMPT)}, {"text": np.array(text)})


def _vision_folder(place: Path) -> Prediction:
    from image_folders import encoded, picture
    from vision_folders import Reference, make_vision_model

    folder = make_vision_model(model_folder(place, ""))
    file = encoded(picture(70, 40))
    content = [{"type": "image"}, {"type": "text", "text": PROMPT}]
    reference = Reference(folder)
    _, tokens, _ = reference.generate([{"role": "user", "content": content}], [file], NUM_TOKENS)
    text = reference.processor.decode(tokens, skip_special_tokens=True)
    return Prediction({"prompt": np.array(PROMPT), "image": np.array(b64encode(file).decode())},
                      {"text": np.array(text)})  # fmt: skip


def _chat(server: RunningServer, prediction: Prediction) -> Mapping[str, Array]:
    address = f"data:image/png;base64,{prediction.inputs['image']}"
    content = [
        {"type": "image_url", "image_url": {"url": address}},
        {"type": "text", "text": str(prediction.inputs["prompt"])},
    ]
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": NUM_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
    }
    (choice,) = server.post("/v1/chat/completions", body)["choices"]
    return {"text": np.array(choice["message"]["content"])}


def _complete(server: RunningServer, prediction: Prediction) -> Mapping[str, Array]:
    body = {
        "model": MODEL,
        "prompt": str(prediction.inputs["prompt"]),
        "max_tokens": NUM_TOKENS,
        "temperature": 0,
    }
    (choice,) = server.post("/v1/completions", body)["choices"]
    return {"text": np.array(choice["text"])}


KINDS = (
    Kind(
        title="Language model of Hugging Face ([which](llm.md))",
        files="`config.json` of a `...ForCausalLM`, `*.safetensors`, the tokenizer's files",
        backend="llm",
        library="trivet's engine",
        extra="llm",
        make=_hub_folder,
        ask=_complete,
    ),
    Kind(
        title="Language model of Hugging Face of any other architecture of transformers ([which]"
        "(llm.md#models-without-a-family))",
        files="the same, also of a `...LMHeadModel`",
        backend="llm",
        library="transformers under trivet's engine",
        extra="llm-transformers",
        make=_without_family,
        ask=_complete,
        slow=True,
    ),
    Kind(
        title="Language model of Hugging Face that reads images ([which](llm.md#images))",
        files="`config.json` of a `SmolVLMForConditionalGeneration` or "
        "`Idefics3ForConditionalGeneration`, `*.safetensors`, the files of tokenizer and processor",
        backend="llm",
        library="transformers under trivet's engine",
        extra="llm-transformers",
        make=_vision_folder,
        ask=_chat,
        slow=True,
    ),
    Kind(
        title="Language model as GGUF",
        files="the only `.gguf` file, also one beside the folders: `NAME.gguf`",
        backend="llm",
        library="trivet's engine",
        extra="llm",
        make=partial(_gguf, path=f"{MODEL}.gguf"),
        ask=_complete,
    ),
    Kind(
        title="Language model as GGUF in parts",
        files="`NAME-00001-of-00003.gguf` and so on, in a folder or beside the folders",
        backend="llm",
        library="trivet's engine",
        extra="llm",
        make=partial(_gguf, path=f"{MODEL}.gguf", tensors_per_part=10),
        ask=_complete,
        slow=True,
    ),
)

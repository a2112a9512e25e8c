"""Language models: a Hugging Face folder and GGUF, answered as transformers does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from acceptance.kind import MODEL, Array, Kind, Prediction, model_folder
from serving import RunningServer

PROMPT = "the there their then"
NUM_TOKENS = 8


def _hub_folder(place: Path) -> Prediction:
    from paged_models import save_model

    return _predicted(save_model(model_folder(place)))


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
)

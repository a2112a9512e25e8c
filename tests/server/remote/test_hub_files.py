"""Which files of a hub's repository are fetched, and where they lie."""

import pytest

from trivet.server.remote.hub_files import choose
from trivet.server.remote.source import RemoteError

WHERE = "hf://org/name"
ABOUT = ("README.md", "requirements.txt", ".gitattributes", "assets/plot.png")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")
FOLDER = ("config.json", *TOKENIZER)


def chosen(*paths: str, wanted: str = "") -> dict[str, str]:
    return dict(choose([*paths, *ABOUT], wanted, WHERE))


def refused(*paths: str, wanted: str = "") -> str:
    with pytest.raises(RemoteError) as caught:
        choose([*paths, *ABOUT], wanted, WHERE)
    return str(caught.value)


def lying(*paths: str) -> dict[str, str]:
    return {path: path for path in paths}


def test_a_language_model_is_its_safetensors_config_and_tokenizer() -> None:
    shards = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    index = "model.safetensors.index.json"
    template = "additional_chat_templates/tool_use.jinja"
    others = ("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "onnx/model.onnx",
              "consolidated.safetensors", "original/model.safetensors", "model-Q4_0.gguf",
              "rust_model.ot", "modeling_name.py")  # fmt: skip
    kept = (*shards, index, *FOLDER, "generation_config.json", "chat_template.jinja", template)
    assert chosen(*kept, *others) == lying(*kept)


def test_a_sentence_transformer_keeps_its_modules() -> None:
    kept = (*FOLDER, "modules.json", "model.safetensors", "1_Pooling/config.json",
            "2_Dense/config.json", "2_Dense/model.safetensors")  # fmt: skip
    others = ("onnx/model.onnx", "onnx/config.json", "2_Dense/pytorch_model.bin")
    assert chosen(*kept, *others) == lying(*kept)


def test_variants_of_weights_stay_where_they_are() -> None:
    found = chosen("config.json", "model.safetensors", "model.fp16.safetensors")
    assert found == lying("config.json", "model.safetensors")
    assert chosen("config.json", "weights.safetensors") == lying(
        "config.json", "weights.safetensors"
    )


def test_a_named_variant_becomes_the_model() -> None:
    files = ("config.json", "model.safetensors.index.json", "model-fp8.safetensors")
    found = chosen(*files, wanted="model-fp8.safetensors")
    assert found == {"config.json": "config.json", "model.safetensors": "model-fp8.safetensors"}


def test_the_only_gguf_is_taken_with_all_its_parts() -> None:
    parts = [f"Q8_0/x-Q8_0-{number:05}-of-00002.gguf" for number in (1, 2)]
    found = chosen(*parts, "mmproj-x-f16.gguf", "config.json")
    assert found == {part.removeprefix("Q8_0/"): part for part in parts}


@pytest.mark.rows("R37")
def test_of_several_quantisations_the_address_names_one() -> None:
    files = ("x-Q4_K_M.gguf", "x-Q8_0.gguf")
    text = refused(*files)
    assert "hf://org/name holds 2 models; name the file in the address, hf://org/name/FILE" in text
    assert "x-Q4_K_M.gguf, x-Q8_0.gguf" in text
    assert chosen(*files, wanted="x-Q8_0.gguf") == lying("x-Q8_0.gguf")
    assert "has no file 'x-Q2.gguf'; there is x-Q4_K_M.gguf" in refused(*files, wanted="x-Q2.gguf")


def test_a_long_list_of_quantisations_is_cut() -> None:
    text = refused(*(f"x-{number:02}.gguf" for number in range(12)))
    assert text.endswith("x-07.gguf and 4 more")


def test_onnx_is_taken_where_there_are_no_safetensors() -> None:
    kept = (*FOLDER, "onnx/model.onnx", "onnx/model.onnx_data")
    assert chosen(*kept, "onnx/model_int8.onnx", "pytorch_model.bin") == lying(*kept)


def test_a_named_onnx_file_becomes_the_model() -> None:
    files = (*FOLDER, "onnx/model.onnx", "onnx/model_int8.onnx", "onnx/model_int8.onnx_data")
    found = chosen(*files, wanted="onnx/model_int8.onnx")
    assert found == {
        **lying(*FOLDER),
        "model.onnx": "onnx/model_int8.onnx",
        "model_int8.onnx_data": "onnx/model_int8.onnx_data",
    }
    assert "2 ONNX models" in refused("a.onnx", "b.onnx")


def test_a_saved_model_keeps_its_folder_and_no_library() -> None:
    found = chosen("tf/saved_model.pb", "tf/variables/variables.index", "tf/assets.extra/x.so")
    assert found == {
        "model.savedmodel/saved_model.pb": "tf/saved_model.pb",
        "model.savedmodel/variables/variables.index": "tf/variables/variables.index",
    }


@pytest.mark.parametrize("file", ["model.keras", "x.tflite", "x.skops", "x.cbm", "model.json"])
def test_other_formats_of_data_are_taken(file: str) -> None:
    assert chosen(file) == lying(file)


def test_openvinos_weights_are_no_pickle() -> None:
    assert chosen("openvino_model.xml", "openvino_model.bin") == lying(
        "openvino_model.xml", "openvino_model.bin"
    )


@pytest.mark.rows("R37")
def test_pickles_alone_are_refused_with_what_to_do() -> None:
    text = refused("config.json", "pytorch_model.bin")
    assert "has its weights as pickles alone (pytorch_model.bin)" in text
    assert "@refs/pr/NUMBER" in text


@pytest.mark.parametrize("file", ["model.pt2", "model.py", "model.pkl", "lib.so"])
@pytest.mark.rows("R37")
def test_what_runs_code_is_not_fetched_by_name_either(file: str) -> None:
    assert "could run code here and is not fetched" in refused(file, wanted=file)
    assert "could run code here and is not fetched" in refused(file)


def test_what_is_no_model_is_told() -> None:
    assert "holds no model that is served from a hub" in refused()
    assert "pipeline of diffusers" in refused("model_index.json", "unet/model.safetensors")


def test_paths_that_lead_elsewhere_are_no_files_of_a_model() -> None:
    bad = ("../../x.json", "/etc/x.json", "../model.safetensors", "a/../../x.txt")
    assert chosen("config.json", "model.safetensors", *bad) == lying(
        "config.json", "model.safetensors"
    )

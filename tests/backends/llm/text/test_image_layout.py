"""What stands for images in a prompt, against transformers' own processors."""

import json
from pathlib import Path

import pytest
import transformers
from image_folders import picture
from vision_folders import KINDS, LONGEST, TILE, make_tokenizer

from trivet.backends.api import InvalidRequest, LoadFailed
from trivet.backends.llm.text.image_layout import Grid, ImageLayout, read_layout
from trivet.backends.llm.text.literal import Literals

LAYOUT = ImageLayout(
    "<image>", 7, "<fake_token_around_image>", "<global-img>", 4, LONGEST, TILE, splits=True
)
SIZES = ((1, 1), (1, 50), (50, 1), (32, 32), (33, 32), (64, 64), (65, 31), (70, 40), (40, 97),
         (101, 100), (100, 101), (63, 1), (128, 17), (200, 199))  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("longest", [64, 80, 20])
def test_an_image_is_cut_as_the_image_processor_cuts_it(kind: str, longest: int) -> None:
    layout = ImageLayout("<image>", 7, "", "", 4, longest, TILE, splits=True)
    processor = KINDS[kind][2](
        size={"longest_edge": longest}, max_image_size={"longest_edge": TILE}
    )

    for size in SIZES:
        made = processor(images=picture(*size), return_row_col_info=True)
        grid = layout.grid(*size)
        assert (grid.rows, grid.columns) == (made["rows"][0][0], made["cols"][0][0]), size
        assert grid.num_tiles == len(made["pixel_values"][0]), size


@pytest.mark.parametrize("settings", [{"do_resize": False}, {"do_image_splitting": False}])
def test_settings_of_the_processor_are_heeded(tmp_path: Path, settings: dict[str, bool]) -> None:
    processor = KINDS["smolvlm"][2](max_image_size={"longest_edge": TILE}, **settings)
    layout = _read(tmp_path, {"image_processor": processor.to_dict()})

    for size in SIZES:
        made = processor(images=picture(*size))
        assert layout.grid(*size).num_tiles == len(made["pixel_values"][0]), size


def test_the_marks_are_those_of_transformers_processor() -> None:
    processor = transformers.Idefics3Processor(
        KINDS["smolvlm"][2](size={"longest_edge": 64}, max_image_size={"longest_edge": TILE}),
        make_tokenizer(),
        image_seq_len=4,
    )

    for size in ((20, 20), (70, 40), (40, 97)):
        text = processor(images=[[picture(*size)]], text=["a<image>b"])
        written = LAYOUT.placed("a<image>b", [LAYOUT.grid(*size)])
        assert processor.tokenizer(written)["input_ids"] == text["input_ids"][0]


def test_what_a_client_writes_is_no_place_for_an_image() -> None:
    literals = Literals(["<image>"])
    marked = literals.marked("<image>")

    prompt = LAYOUT.placed(literals.prompt(f"<image> {marked} <image>!"), [Grid(0, 0), Grid(1, 2)])

    assert prompt.count("<image>") == 4 + 1 + 3 * 4
    (start, end) = (place for place in range(len(prompt)) if prompt[place:].startswith(" "))
    assert prompt[start + 1 : end] == "<image>"
    assert prompt.cuts == (start + 2,)  # type: ignore[attr-defined]  # it is a Prompt


@pytest.mark.parametrize("text", ["no place", "<image><image>"])
def test_a_template_that_makes_other_places_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"makes places for \d images of 1"):
        LAYOUT.placed(text, [Grid(0, 0)])


def test_older_folders_have_a_file_for_images_alone(tmp_path: Path) -> None:
    settings = {"size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))

    layout = _read(tmp_path, {"image_seq_len": 64, "processor_class": "SmolVLMProcessor"})

    assert layout.grid(4000, 3000) == Grid(3, 4)
    assert layout.num_tokens(layout.grid(4000, 3000)) == 13 * 64


@pytest.mark.parametrize("processor", [{}, {"image_processor": {"size": {"height": 3}}}])
def test_a_folder_that_does_not_say_how_is_refused(
    tmp_path: Path, processor: dict[str, object]
) -> None:
    with pytest.raises(LoadFailed, match=r"preprocessor_config\.json"):
        _read(tmp_path, processor)


def test_other_models_take_no_images(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))

    assert read_layout(tmp_path) is None


def _read(folder: Path, processor: dict[str, object]) -> ImageLayout:
    described = {"architectures": ["SmolVLMForConditionalGeneration"], "image_token_id": 7}
    (folder / "config.json").write_text(json.dumps(described))
    (folder / "processor_config.json").write_text(json.dumps(processor))
    found = read_layout(folder)
    assert found is not None
    return found

"""Image classifiers' answers, compared with transformers' pipeline."""

import base64
import io
import random
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from image_folders import LABELS, encoded, export_onnx, make_classifier, picture, predictions
from PIL import Image

from trivet.backends.api import (
    Batch,
    CheckedRequest,
    Instance,
    InvalidConfig,
    InvalidRequest,
    LoadFailed,
    ModelFiles,
    Placement,
    Tensor,
)
from trivet.backends.api.image_classifier import ImageClassifierInfo
from trivet.backends.hugging_face.image_bounds import Bounds
from trivet.backends.hugging_face.image_decoding import Decoder
from trivet.backends.process import open_isolated
from trivet.backends.registry import choose_about, find_backend
from trivet.protos.model_config_pb2 import ModelConfig

Answer = dict[str, np.ndarray]


def config_of(folder: Path, **parameters: str) -> ModelConfig:
    config = ModelConfig(name=folder.parent.name)
    for name, text in parameters.items():
        config.parameters[name].string_value = text
    files = ModelFiles(folder.parent, 1)
    return find_backend(config, files).backend.complete(config, files)


def open_classifier(folder: Path, **parameters: str) -> Instance:
    config, files = config_of(folder, **parameters), ModelFiles(folder.parent, 1)
    return find_backend(config, files).backend.open(
        config, files, Placement("m_0_0", "KIND_CPU", 0, 2)
    )


def request(*files: bytes, outputs: tuple[str, ...] = ()) -> CheckedRequest:
    data = np.array([[each] for each in files], dtype=object)
    inputs = {"image": Tensor.of("image", data)}
    return CheckedRequest("m", 1, "", inputs, outputs, batch_size=len(files))


def run(instance: Instance, *requests: CheckedRequest) -> Batch:
    batch = Batch(requests, batching=True)
    instance.execute(batch)
    return batch


def answer(instance: Instance, *files: bytes, outputs: tuple[str, ...] = ()) -> Answer:
    """Of one request. Raises its error."""
    batch = run(instance, request(*files, outputs=outputs))
    for error in batch.errors.values():
        raise error
    return {tensor.name: tensor.numpy() for tensor in batch.outputs[0]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_classifier(tmp_path_factory.mktemp("images") / "m/1")


@pytest.fixture(scope="module")
def instance(folder: Path) -> Instance:
    return open_classifier(folder)


def check(instance: Instance, folder: Path, files: list[bytes]) -> None:
    expected = predictions(folder, files)
    found = answer(instance, *files)
    scores = [[each[label] for label in LABELS] for each in expected]
    best = [max(each, key=each.__getitem__).encode() for each in expected]
    np.testing.assert_allclose(found["scores"], scores, rtol=3e-5, atol=1e-6)
    assert found["label"].ravel().tolist() == best
    assert np.ptp(found["scores"], axis=0).max() > 1e-3, "all images are alike to this model"


@pytest.mark.parametrize("family", ["vit", "resnet", "convnext"])
def test_scores_are_those_of_the_pipeline(tmp_path: Path, family: str) -> None:
    folder = make_classifier(tmp_path / "m/1", family)
    files = [encoded(picture(50, 30)), encoded(picture(31, 77, 3)), encoded(picture(64, 64, 5))]
    check(open_classifier(folder), folder, files)


def test_formats_modes_and_turned_photographs_are_read_as_the_pipeline_reads_them(
    folder: Path, instance: Instance
) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    files = [
        encoded(picture(seed=1), "JPEG", quality=70),
        encoded(picture(seed=2), "JPEG", exif=turned),
        encoded(picture(seed=3), "WEBP"),
        encoded(picture(seed=4), "GIF"),
        encoded(picture(seed=5), "BMP"),
        encoded(picture(seed=6, mode="RGBA")),
        encoded(picture(seed=7, mode="L")),
        encoded(picture(seed=8, mode="P")),
        encoded(picture(seed=9, mode="CMYK"), "JPEG"),
        encoded(picture(1, 1)),
        encoded(picture(3, 1)),
    ]
    check(instance, folder, files)


def test_requests_of_a_batch_are_computed_together_and_answered_apart(instance: Instance) -> None:
    first, second, third = (encoded(picture(40 + seed, 33, seed)) for seed in range(3))
    batch = run(instance, request(first, second), request(third))
    alone = answer(instance, third)
    outputs = [{t.name: t.numpy() for t in each} for each in batch.outputs]
    assert [each["scores"].shape for each in outputs] == [(2, 3), (1, 3)]
    np.testing.assert_allclose(outputs[1]["scores"], alone["scores"], rtol=1e-5)
    assert "logits" not in alone


def test_logits_are_given_to_who_names_them(instance: Instance) -> None:
    found = answer(instance, encoded(picture()), outputs=("logits", "scores"))
    odds = np.exp(found["logits"])
    np.testing.assert_allclose(found["scores"], odds / odds.sum(), rtol=1e-5)


@pytest.mark.parametrize(
    ("labels", "more"),
    [
        (LABELS, {"problem_type": "multi_label_classification"}),
        (LABELS, {"problem_type": "regression"}),
        (("trivet",), {}),
    ],
)
def test_scores_of_other_problems_are_made_as_there(
    tmp_path: Path, labels: tuple[str, ...], more: dict[str, str]
) -> None:
    folder = make_classifier(tmp_path / "m/1", labels=labels, **more)
    file = encoded(picture())
    (expected,) = predictions(folder, [file])
    found = answer(open_classifier(folder), file)
    np.testing.assert_allclose(found["scores"][0], [expected[each] for each in labels], rtol=3e-5)


def test_an_onnx_file_is_computed_whatever_its_input_is_called(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    folder = make_classifier(tmp_path / "m/1")
    mean = helper.make_node("GlobalAveragePool", ["x"], ["mean"])
    flat = helper.make_node("Flatten", ["mean"], ["y"])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 3, 32, 32])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 3])
    graph = helper.make_graph([mean, flat], "colours", [x], [y])
    opset = [helper.make_opsetid("", 17)]
    made = helper.make_model(graph, opset_imports=opset, ir_version=8)
    (folder / "model.onnx").write_bytes(made.SerializeToString())
    (folder / "model.safetensors").unlink()

    red, blue = (encoded(Image.new("RGB", (32, 32), colour)) for colour in ("red", "blue"))
    found = answer(open_classifier(folder), red, blue, outputs=("logits", "label"))

    np.testing.assert_allclose(found["logits"], [[1, -1, -1], [-1, -1, 1]], atol=1e-5)
    assert found["label"].ravel().tolist() == [b"cat", b"trivet"]


@pytest.mark.slow
def test_an_onnx_file_computes_the_same(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "m/1")
    files = [encoded(picture(seed=seed)) for seed in range(3)]
    expected = answer(open_classifier(folder), *files)
    export_onnx(folder)
    found = answer(open_classifier(folder), *files)
    np.testing.assert_allclose(found["scores"], expected["scores"], rtol=3e-5)


def test_images_that_preprocessing_leaves_in_their_sizes_are_computed_size_by_size(
    tmp_path: Path,
) -> None:
    folder = make_classifier(tmp_path / "m/1", "resnet")
    path = folder / "preprocessor_config.json"
    path.write_text(path.read_text().replace('"do_resize": true', '"do_resize": false'))
    check(open_classifier(folder), folder, [encoded(picture(48 + 8 * s, 40, s)) for s in range(3)])


# -- what is refused ---------------------------------------------------------------------------

WHOLE = encoded(picture(200, 100), "JPEG")


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (b"", "it is empty"),
        (b"no image at all", "15 bytes that are no image file of a kind .* BMP, GIF, JPEG, PNG"),
        (base64.b64encode(encoded(picture())), "look like base64; send the bytes of the file"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "no image file of a kind"),
        (encoded(picture(), "TIFF"), "no image file of a kind"),
        (WHOLE[: len(WHOLE) // 2], "the file cannot be decoded: image file is truncated"),
        (WHOLE[:20], "cannot be decoded|no image file"),
        (encoded(picture())[:60], "cannot be decoded"),
    ],
)
def test_a_file_that_is_no_image_fails_its_request_alone(
    instance: Instance, wrong: bytes, text: str
) -> None:
    good = encoded(picture())
    batch = run(instance, request(good), request(good, wrong), request(good))
    assert list(batch.errors) == [1]
    with pytest.raises(type(batch.errors[1]), match=rf"image\[1\]: .*({text})"):
        raise batch.errors[1]
    assert batch.errors[1].__class__.__name__ == "InvalidRequest"
    assert [bool(outputs) for outputs in batch.outputs] == [True, False, True]


KINDS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "WEBP")


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_read_or_refused_and_nothing_else(kind: str) -> None:
    whole, draw = encoded(picture(), kind), random.Random(kind)
    decoder = Decoder(Bounds(formats=KINDS))
    for _ in range(60):
        file = bytearray(whole[: draw.randrange(1, len(whole) + 1)])
        for place in draw.choices(range(min(len(file), 400)), k=draw.randrange(4)):
            file[place] = draw.randrange(256)
        with suppress(InvalidRequest):
            assert decoder(bytes(file)).mode == "RGB"


def test_a_photograph_whose_exif_leads_nowhere_fails_its_request_alone(instance: Instance) -> None:
    # Turned, with a place for a maker's own data that no file is long enough for.
    entries = ((0x0112, 3, 1, 6), (0x8769, 16, 1, 116))
    packed = b"".join(struct.pack("<HHII", *each) for each in entries)
    exif = b"II*\0\x08\0\0\0\x02\0" + packed + bytes(86) + b"\xff" * 100
    picture().save(file := io.BytesIO(), "JPEG", exif=b"Exif\0\0" + exif)
    batch = run(instance, request(file.getvalue()), request(encoded(picture())))
    assert [bool(outputs) for outputs in batch.outputs] == [False, True]
    assert "the file cannot be decoded" in batch.errors[0].message


def bomb(width: int, height: int) -> bytes:
    """A small PNG that says it is large; only its head is ever to be read."""
    file = bytearray(encoded(picture(8, 8)))
    file[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    file[29:33] = zlib.crc32(file[12:29]).to_bytes(4, "big")
    return bytes(file)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (bomb(9000, 8000), "9000 x 8000 are 72000000 pixels, more than the 33554432 .*max_pixels"),
        (bomb(60000, 60000), "3600000000 pixels.* takes 33554432 .*max_pixels"),
        (bomb(1, 6000), "one side of 1 x 6000 is more than 50 times the other .*max_aspect_ratio"),
    ],
)
def test_an_image_is_refused_by_its_head(instance: Instance, file: bytes, text: str) -> None:
    with pytest.raises(Exception, match=text):
        answer(instance, file)


def test_a_jpeg_is_not_decoded_again_and_again(folder: Path) -> None:
    picture(60, 40).save(file := io.BytesIO(), "JPEG", progressive=True)
    usual = open_classifier(folder, max_pixels="2400")
    assert answer(usual, file.getvalue())["scores"].shape == (1, 3)
    num_scans = file.getvalue().count(b"\xff\xda")
    many = rf"60 x 40 pixels in {16 * num_scans} scans.* decodes 16"
    with pytest.raises(InvalidRequest, match=many):
        Bounds(max_pixels=2400).check_passes(16 * num_scans, 60, 40)
    Bounds().check_passes(16 * num_scans, 60, 40)


def test_a_model_s_parameters_move_the_bounds(folder: Path) -> None:
    file = encoded(picture(60, 40))
    small = open_classifier(folder, max_image_bytes="100", image_formats="PNG, tiff")
    with pytest.raises(Exception, match=f"{len(file)} bytes are more than the 100 .*max_image_by"):
        answer(small, file)
    other = open_classifier(folder, image_formats="tiff", max_pixels="2400")
    assert answer(other, encoded(picture(60, 40), "TIFF"))["scores"].shape == (1, 3)
    with pytest.raises(Exception, match="2460 pixels, more than the 2400"):
        answer(other, encoded(picture(60, 41), "TIFF"))
    with pytest.raises(InvalidConfig, match=r"image_formats has \['EPS'\]; it may list BMP"):
        config_of(folder, image_formats="png,eps")


def test_a_request_whose_client_has_gone_is_not_decoded(instance: Instance) -> None:
    gone, kept = request(b"never looked at"), request(encoded(picture()))
    gone.cancel.cancel()
    batch = run(instance, gone, kept)
    assert not batch.errors
    assert [bool(outputs) for outputs in batch.outputs] == [False, True]


@pytest.mark.slow
def test_a_process_of_its_own_gives_the_same(folder: Path, instance: Instance) -> None:
    config, files = config_of(folder, isolation="process"), ModelFiles(folder.parent, 1)
    apart = open_isolated("image_classifier", config, files, Placement("m_0_0", "KIND_CPU", 0, 1))
    good = encoded(picture())
    try:
        batch = run(apart, request(good), request(b"no image"))
    finally:
        apart.close()
    assert "image[0]: 8 bytes" in batch.errors[1].message
    found = {tensor.name: tensor.numpy() for tensor in batch.outputs[0]}
    np.testing.assert_allclose(found["scores"], answer(instance, good)["scores"], rtol=1e-5)


# -- folders -----------------------------------------------------------------------------------


def test_the_config_says_what_goes_in_and_out(folder: Path) -> None:
    config = config_of(folder)
    assert choose_about(ModelConfig(), ModelFiles(folder.parent, 1)).word == "image_classifier"
    assert [(each.name, list(each.dims)) for each in config.input] == [("image", [1])]
    assert [each.name for each in config.output] == ["scores", "label", "logits"]
    assert config.max_batch_size == 1024
    assert ImageClassifierInfo.of(config) == ImageClassifierInfo(LABELS, "softmax")


def test_a_folder_without_its_preprocessing_says_how_to_write_it(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "m/1")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(InvalidConfig, match=r"no preprocessor_config\.json.*save_pretrained"):
        choose_about(ModelConfig(), ModelFiles(folder.parent, 1))


def test_code_that_lies_in_a_folder_is_never_run(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "m/1")
    (folder / "own.py").write_text("raise SystemExit('it was run')")
    path = folder / "preprocessor_config.json"
    text = path.read_text().replace("ViTImageProcessor", "OwnProcessor")
    path.write_text(text.replace("{", '{"auto_map": {"AutoImageProcessor": "own.Own"},', 1))
    with pytest.raises(LoadFailed, match="has no image processor for preprocessor_config"):
        open_classifier(folder)

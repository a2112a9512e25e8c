"""What clients get from a PyTorch model: values, types, memory, errors; its parameters."""

import numpy as np
import pytest
import torch
from torch_models import (
    ADD_SUB,
    ADD_SUB_SOURCE,
    ONES,
    AddSub,
    Counter,
    Home,
    Same,
    io,
    make_request,
    parameter,
    run_one,
)

from trivet.backends.api import (
    BackendFailed,
    Batch,
    DataType,
    InvalidConfig,
    LoadFailed,
    Placement,
)


@pytest.mark.parametrize("kind", [kind for kind in DataType if kind is not DataType.BYTES])
def test_every_datatype_shares_its_memory_in_and_out(home: Home, kind: DataType) -> None:
    home.put_script(Same())
    array = np.array([[0, 1, 1, 0]]).astype(kind.dtype)
    array.flags.writeable = False  # as the bytes of a request are
    name = kind.value

    outputs = run_one(
        home.open(io("input", "x", kind=name) + io("output", "y", kind=name)), x=array
    )

    assert outputs["y"].dtype == kind.dtype
    assert outputs["y"].tolist() == array.tolist()
    assert np.shares_memory(outputs["y"], array)


class Shout(torch.nn.Module):
    """Texts in capitals, and how long they are."""

    def forward(self, texts: list[str], factor: torch.Tensor) -> tuple[list[str], torch.Tensor]:
        lengths = torch.zeros(len(texts), 1)
        for index, text in enumerate(texts):
            lengths[index] = len(text)
        return [text.upper() for text in texts], lengths * factor


class Lone(torch.nn.Module):
    def forward(self, texts: list[str]) -> list[str]:
        return [text + "!" for text in texts]


SHOUT = (
    io("input", "texts", dims="1", kind="STRING")
    + io("input", "factor", dims="1")
    + io("output", "OUTPUT__0", dims="1", kind="STRING")
    + io("output", "OUTPUT__1", dims="1")
)


def test_lists_of_texts_are_joined_and_handed_out_by_row(home: Home) -> None:
    home.put_script(Shout())
    instance = home.open("max_batch_size: 8 " + SHOUT)
    factor = np.ones((1, 1), np.float32)
    texts = [np.array([[text]], dtype=object) for text in (b"abc", "\u00e4".encode(), b"\xff")]
    requests = [make_request({"texts": text, "factor": factor}) for text in texts]
    batch = Batch(requests, batching=True)

    instance.execute(batch)

    answers = [[tensor.numpy().tolist() for tensor in outputs] for outputs in batch.outputs]
    assert answers[:2] == [[[[b"ABC"]], [[3.0]]], [[["\u00e4".encode()]], [[2.0]]]]
    assert "not UTF-8 (byte 0), but PyTorch takes only UTF-8" in batch.errors[2].message


def test_a_lone_list_of_texts_is_the_output(home: Home) -> None:
    home.put_script(Lone())
    text = io("input", "x", dims="-1", kind="STRING") + io("output", "y", dims="-1", kind="STRING")
    batch = Batch([make_request({"x": np.array([b"a", b"b"], dtype=object)})], batching=False)

    home.open(text).execute(batch)

    assert batch.outputs[0][0].numpy().tolist() == [b"a!", b"b!"]


def test_texts_of_more_dimensions_are_refused(home: Home) -> None:
    home.put_script(Lone())
    text = io("input", "x", dims="2, 2", kind="STRING") + io("output", "y", kind="STRING")
    with pytest.raises(InvalidConfig, match=r"'x' holds texts, which TorchScript takes"):
        home.open(text)


def test_strings_are_refused_where_there_are_none(home: Home) -> None:
    home.path("model.py").write_text(ADD_SUB_SOURCE)

    with pytest.raises(InvalidConfig, match=r"'x'.*all types but TYPE_STRING"):
        home.open(io("input", "x", kind="STRING") + io("output", "y"))


def test_tensor_without_elements_goes_through(home: Home) -> None:
    home.put_script(Same())
    instance = home.open(io("input", "x", dims="-1") + io("output", "y", dims="-1"))

    assert run_one(instance, x=np.empty((2, 0), np.float32))["y"].shape == (2, 0)


def test_batch_mates_get_views_of_one_result(home: Home) -> None:
    home.put_script(AddSub())
    batch = Batch(
        [make_request({"a": ONES, "b": ONES}), make_request({"a": ONES * 9, "b": ONES})],
        batching=True,
    )

    home.open(ADD_SUB).execute(batch)

    first, second = ({t.name: t.numpy() for t in outputs} for outputs in batch.outputs)
    assert first["OUTPUT__0"].tolist() == [[2.0] * 4]
    assert second["OUTPUT__1"].tolist() == [[8.0] * 4]
    assert first["OUTPUT__0"].base is second["OUTPUT__0"].base is not None


def test_only_wanted_outputs_are_given(home: Home) -> None:
    home.put_script(AddSub())
    batch = Batch([make_request({"a": ONES, "b": ONES}, ("OUTPUT__1",))], batching=True)

    home.open(ADD_SUB).execute(batch)

    assert [tensor.name for tensor in batch.outputs[0]] == ["OUTPUT__1"]


def test_answer_is_not_changed_by_the_next_call(home: Home) -> None:
    home.put_script(Counter())
    text = parameter("INFERENCE_MODE", "false")
    instance = home.open(text + io("input", "x") + io("output", "y", dims="1"))

    first = run_one(instance, x=ONES)["y"]
    second = run_one(instance, x=ONES)["y"]

    assert (first.tolist(), second.tolist()) == ([[4.0]], [[8.0]])


@pytest.mark.parametrize(
    "text",
    [
        parameter("INFERENCE_MODE", "false"),
        parameter("DISABLE_OPTIMIZED_EXECUTION", "true"),
        parameter("DISABLE_CUDNN", "true"),
        parameter("ENABLE_CACHE_CLEANING", "true"),
    ],
)
def test_modes_do_not_change_the_answer(home: Home, text: str) -> None:
    home.put_script(torch.nn.Linear(4, 1, bias=False))

    found = run_one(home.open(text + io("input", "input") + io("output", "y")), input=ONES * 0)

    assert found["y"].tolist() == [[0.0]]


def test_wrong_type_from_the_model_is_told(home: Home) -> None:
    home.put_script(Same())
    instance = home.open(io("input", "x") + io("output", "y", kind="INT32"))

    with pytest.raises(BackendFailed, match=r"torch\.float32 for output 'y'.*TYPE_INT32"):
        run_one(instance, x=ONES)


def test_missing_output_is_told(home: Home) -> None:
    home.put_script(Same())

    with pytest.raises(BackendFailed, match=r"1 value\(s\), none of which is output 'OUTPUT__1'"):
        run_one(home.open(io("input", "x") + io("output", "OUTPUT__1")), x=ONES)


def test_a_parameter_sets_the_threads_anew(home: Home) -> None:
    home.put_script(AddSub())
    torch.set_num_threads(3)

    home.open(ADD_SUB + parameter("INTRA_OP_THREAD_COUNT", "2"))

    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (parameter("INFERENCE_MODE", "maybe"), "'INFERENCE_MODE' must be true or false"),
        (parameter("NUM_THREADS", "-2"), "'NUM_THREADS' must be a whole number"),
        (parameter("TORCH_COMPILE_OPTIONAL_PARAMETERS", "[1]"), "must be a JSON object"),
    ],
)
def test_bad_parameter_is_told(home: Home, text: str, message: str) -> None:
    home.put_script(AddSub())

    with pytest.raises(InvalidConfig, match=message):
        home.open(ADD_SUB + text)


def test_gpu_that_is_not_there_is_told(home: Home) -> None:
    home.put_script(AddSub())

    with pytest.raises(LoadFailed, match=r"asks for GPU 99"):
        home.backend.open(home.complete(ADD_SUB), home.files, Placement("m_0_0", "KIND_GPU", 99, 1))


def test_closed_instance_is_not_ready(home: Home) -> None:
    home.put_script(AddSub())
    instance = home.open(ADD_SUB)

    instance.close()

    assert not instance.is_ready()

"""The objects of `triton_python_backend_utils`, by themselves."""

import json
from collections.abc import Iterator
from typing import Any, cast

import ml_dtypes
import numpy as np
import pytest

from trivet.backends.python.model_api.metrics import keeping
from trivet.backends.python.shim import triton_python_backend_utils as pb_utils
from trivet.server.metrics.custom import CustomMetrics


def user_config(**fields: Any) -> pb_utils.ModelConfig:
    return pb_utils.ModelConfig(json.dumps({"name": "m", **fields}))


IN = {"name": "IN", "data_type": "TYPE_FP32", "dims": [4]}


def test_open_fields_of_a_given_input_are_filled_in() -> None:
    config = user_config(input=[{"name": "IN", "data_type": "TYPE_INVALID", "dims": []}])
    config.add_input(IN | {"optional": True})
    assert config.as_dict()["input"] == [IN | {"optional": True}]


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        (IN | {"reshape": {}}, "contains property other than 'name', 'data_type', 'dims'"),
        ({"data_type": "TYPE_FP32", "dims": [1]}, "missing 'name' property"),
        ({"name": "X", "dims": [1]}, "input 'X' .* missing 'data_type' property"),
        ({"name": "X", "data_type": "TYPE_FP32"}, "missing 'dims' property"),
        (IN | {"data_type": "TYPE_INT8"}, "expects datatype TYPE_FP32 for input 'IN'"),
        (
            IN | {"dims": [5]},
            r"expects dims \[5\] but the model configuration specifies dims \[4\]",
        ),
    ],
)
def test_an_input_that_does_not_fit_is_refused(tensor: dict[str, Any], text: str) -> None:
    config = user_config(input=[IN])
    with pytest.raises(ValueError, match=text):
        config.add_input(tensor)


def test_an_output_has_no_optional_property() -> None:
    with pytest.raises(ValueError, match="other than 'name', 'data_type' and 'dims'"):
        user_config().add_output(IN | {"optional": True})


def test_a_config_file_may_ask_for_smaller_batches_only() -> None:
    config = user_config(max_batch_size=4)
    config.set_max_batch_size(8)
    assert config.as_dict()["max_batch_size"] == 8
    with pytest.raises(ValueError, match="specified max_batch_size 8"):
        config.set_max_batch_size(2)


def test_dynamic_batching_gives_way_to_no_other_scheduler() -> None:
    with pytest.raises(ValueError, match="sequence_batching"):
        user_config(sequence_batching={}).set_dynamic_batching()


def test_a_decoupled_policy_cannot_be_turned_over() -> None:
    config = user_config(model_transaction_policy={"decoupled": False})
    with pytest.raises(ValueError, match="already set to 'False'"):
        config.set_model_transaction_policy({"decoupled": True})


def test_dlpack_shares_memory_both_ways() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensor = pb_utils.Tensor("A", array)
    there = pb_utils.Tensor.from_dlpack("B", tensor)
    again = pb_utils.Tensor.from_dlpack("C", tensor.to_dlpack())
    array[0, 0] = 42
    assert there.as_numpy()[0, 0] == 42
    assert again.as_numpy()[0, 0] == 42
    assert there.shape() == [2, 3]
    assert there.is_cpu()


def test_dlpack_of_strings_is_refused_in_words() -> None:
    with pytest.raises(pb_utils.TritonModelException, match="no string type"):
        pb_utils.Tensor("A", np.array([b"x"], dtype=object)).to_dlpack()


@pytest.mark.parametrize(
    ("dtype", "number"),
    [("?", 1), ("u1", 2), ("i8", 9), ("f2", 10), ("f4", 11), ("O", 13), (ml_dtypes.bfloat16, 14)],
)
def test_datatype_numbers_are_tritons(dtype: Any, number: int) -> None:
    assert pb_utils.Tensor("A", np.zeros(1, dtype)).triton_dtype() == number
    assert pb_utils.numpy_to_triton_type(np.dtype(dtype)) == number
    assert np.dtype(pb_utils.triton_to_numpy_type(number)) == np.dtype(dtype)


def test_config_names_of_datatypes_give_numpy_types() -> None:
    assert pb_utils.triton_string_to_numpy("TYPE_STRING") is np.object_
    assert pb_utils.triton_string_to_numpy("TYPE_FP16") is np.float16
    assert pb_utils.triton_string_to_numpy("TYPE_BOOL") is bool


@pytest.mark.parametrize("array", [np.zeros(2, np.complex64), [1, 2], None])
def test_what_is_no_tensor_is_refused_by_name(array: Any) -> None:
    with pytest.raises(pb_utils.TritonModelException, match="tensor 'A'"):
        pb_utils.Tensor("A", array)


def test_string_tensors_survive_serialization() -> None:
    array = np.array([["a", b"\x00"], ["é", ""]], dtype=object)
    encoded = pb_utils.serialize_byte_tensor(array)
    assert encoded is not None
    assert pb_utils.deserialize_bytes_tensor(encoded).tolist() == [b"a", b"\x00", "é".encode(), b""]


async def test_nobody_can_be_asked_before_the_model_serves() -> None:
    request = pb_utils.InferenceRequest(
        model_name="other", requested_output_names=["OUT"], inputs=[]
    )
    with pytest.raises(pb_utils.TritonModelException, match="while this model serves"):
        request.exec()
    with pytest.raises(pb_utils.TritonModelException, match="while this model serves"):
        await request.async_exec()


def test_a_request_to_another_model_cannot_be_rescheduled() -> None:
    request = pb_utils.InferenceRequest()
    request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_ALL)
    with pytest.raises(pb_utils.TritonModelException, match="only a request to this model"):
        request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)


def test_outputs_and_inputs_are_found_by_name() -> None:
    tensor = pb_utils.Tensor("A", np.zeros(1))
    response = pb_utils.InferenceResponse([tensor], parameters={"k": 1})
    assert pb_utils.get_output_tensor_by_name(response, "A") is tensor
    assert pb_utils.get_output_tensor_by_name(response, "B") is None
    assert pb_utils.get_input_tensor_by_name(pb_utils.InferenceRequest(inputs=[tensor]), "A")
    assert response.parameters() == '{"k": 1}'
    assert not response.has_error()


def test_a_sender_refuses_what_makes_no_sense() -> None:
    sender = pb_utils.InferenceResponseSender(
        lambda response, is_final: None, lambda: False, is_decoupled=True
    )
    with pytest.raises(pb_utils.TritonModelException, match="Unsupported flag"):
        sender.send(flags=5)
    with pytest.raises(pb_utils.TritonModelException, match="must be provided"):
        sender.send()
    with pytest.raises(pb_utils.TritonModelException, match="Expected an InferenceResponse"):
        sender.send("text")  # type: ignore[arg-type]  # what user code may do


@pytest.fixture
def kept() -> Iterator[None]:
    """Metrics are kept."""
    with keeping(CustomMetrics().owned()):
        yield


def test_metrics_need_somebody_who_keeps_them() -> None:
    with pytest.raises(pb_utils.TritonModelException, match="while this model is loaded"):
        pb_utils.MetricFamily("requests", "what", pb_utils.MetricFamily.COUNTER)


@pytest.mark.usefixtures("kept")
def test_metrics_count_by_labels_as_long_as_they_are_referred_to() -> None:
    family = pb_utils.MetricFamily("requests", "what", pb_utils.MetricFamily.COUNTER)
    first, again = family.Metric({"a": "1"}), family.Metric({"a": "1"})
    first.increment(2)
    again.increment(3)
    assert first.value() == 5
    assert family.Metric({"a": "2"}).value() == 0
    del first, again
    assert family.Metric({"a": "1"}).value() == 0
    with pytest.raises(pb_utils.TritonModelException, match="labels are texts"):
        family.Metric(cast(Any, {"a": 1}))
    with pytest.raises(pb_utils.TritonModelException, match="COUNTER, GAUGE or HISTOGRAM"):
        pb_utils.MetricFamily("x", "what", cast(Any, "counter"))
    with pytest.raises(pb_utils.TritonModelException, match="cannot be incremented by -1"):
        family.Metric().increment(-1)
    with pytest.raises(pb_utils.TritonModelException, match="no operation 'set'"):
        family.Metric().set(1)


@pytest.mark.usefixtures("kept")
def test_a_histogram_needs_rising_buckets() -> None:
    family = pb_utils.MetricFamily("latency", "what", pb_utils.MetricFamily.HISTOGRAM)
    family.Metric(buckets=[0.1, 1.0]).observe(0.5)
    with pytest.raises(pb_utils.TritonModelException, match="must rise"):
        family.Metric({"x": "y"}, buckets=[1.0, 0.1])
    with pytest.raises(pb_utils.TritonModelException, match="buckets are needed"):
        family.Metric({"x": "y"})

"""Unchanged `model.py` files, in a process of their own and in the server's."""

import json
import logging

import numpy as np
import pytest
from python_models import Maker, make_config, make_request, outputs_of, run

from trivet.backends.api import (
    BackendFailed,
    Cancelled,
    InvalidConfig,
    InvalidRequest,
    LoadFailed,
    NotFound,
    ServingError,
    Unavailable,
    Unsupported,
)
from trivet.backends.api.value import changed

ADD_SUB = """
class TritonPythonModel:
    @staticmethod
    def auto_complete_config(auto_complete_model_config):
        for name in ("INPUT0", "INPUT1"):
            auto_complete_model_config.add_input(
                {"name": name, "data_type": "TYPE_FP32", "dims": [4]})
        for name in ("OUTPUT0", "OUTPUT1"):
            auto_complete_model_config.add_output(
                {"name": name, "data_type": "TYPE_FP32", "dims": [4]})
        auto_complete_model_config.set_max_batch_size(8)
        auto_complete_model_config.set_dynamic_batching()
        return auto_complete_model_config

    def initialize(self, args):
        self.model_config = model_config = json.loads(args["model_config"])
        output0 = pb_utils.get_output_config_by_name(model_config, "OUTPUT0")
        output1 = pb_utils.get_output_config_by_name(model_config, "OUTPUT1")
        self.output0_dtype = pb_utils.triton_string_to_numpy(output0["data_type"])
        self.output1_dtype = pb_utils.triton_string_to_numpy(output1["data_type"])

    def execute(self, requests):
        responses = []
        for request in requests:
            in_0 = pb_utils.get_input_tensor_by_name(request, "INPUT0")
            in_1 = pb_utils.get_input_tensor_by_name(request, "INPUT1")
            out_0, out_1 = (in_0.as_numpy() + in_1.as_numpy(), in_0.as_numpy() - in_1.as_numpy())
            responses.append(pb_utils.InferenceResponse(output_tensors=[
                pb_utils.Tensor("OUTPUT0", out_0.astype(self.output0_dtype)),
                pb_utils.Tensor("OUTPUT1", out_1.astype(self.output1_dtype))]))
        return responses
"""

ECHO = """
class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", REPLY)]) for request in requests]
"""


def test_add_sub_without_a_config_describes_itself_and_answers_a_batch(
    maker: Maker, isolation: str
) -> None:
    instance = maker.open(ADD_SUB, make_config(max_batch_size=0), isolation)
    rows = [np.full((1, 4), value, np.float32) for value in (1, 2)]
    batch = run(instance, *(make_request(INPUT0=row, INPUT1=10 * row) for row in rows))
    assert [outputs_of(batch, index)["OUTPUT0"].tolist() for index in (0, 1)] == [
        [[11.0] * 4],
        [[22.0] * 4],
    ]
    assert outputs_of(batch, 1)["OUTPUT1"].tolist() == [[-18.0] * 4]
    assert not batch.errors


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("np.array([b'a', 'b\\u00e9', 3], dtype=object)", [b"a", "bé".encode(), b"3"]),
        ("np.array([b'ab', b'c'])", [b"ab", b"c"]),
        ("np.array(['ab', 'c'])", [b"ab", b"c"]),
        ("np.array([], dtype=object)", []),
        ("np.array([['a'], ['b']], dtype=object)", [[b"a"], [b"b"]]),
    ],
)
def test_strings_of_every_numpy_kind_become_bytes(
    maker: Maker, reply: str, expected: list[object]
) -> None:
    instance = maker.open(ECHO.replace("REPLY", reply), make_config("IN:STRING", ">OUT:STRING"))
    batch = run(instance, make_request(IN=np.array([b"x"], dtype=object)))
    packed = batch.outputs[0][0]
    assert packed.numpy().tolist() == expected


def test_string_inputs_arrive_as_an_object_array_of_bytes(maker: Maker, isolation: str) -> None:
    source = """
    class TritonPythonModel:
        def execute(self, requests):
            array = requests[0].inputs()[0].as_numpy()
            assert array.dtype == np.object_ and array.shape == (2, 1), array
            reply = np.array([[element + b"!"] for element in array.ravel()], dtype=np.object_)
            return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", reply)])]
    """
    instance = maker.open(source, make_config("IN:STRING", ">OUT:STRING"), isolation)
    batch = run(instance, make_request(IN=np.array([[b"\x00\xff"], ["é"]], dtype=object)))
    assert batch.outputs[0][0].packed().objects().tolist() == [b"\x00\xff!", "é!".encode()]


def test_every_number_type_survives_the_way_through_the_model(maker: Maker, isolation: str) -> None:
    source = """
    class TritonPythonModel:
        def execute(self, requests):
            tensors = requests[0].inputs()
            return [pb_utils.InferenceResponse(
                [pb_utils.Tensor("O" + t.name(), t.as_numpy().copy()) for t in tensors])]
    """
    import ml_dtypes

    dtypes = [bool, "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]
    arrays = {f"I{i}": np.ones((2, 3), dtype) for i, dtype in enumerate(dtypes)}
    arrays["I99"] = np.ones((2, 3), ml_dtypes.bfloat16)
    arrays["I100"] = np.array(3, np.float32)
    config = make_config(*(f">O{name}:FP32" for name in arrays))
    batch = run(maker.open(source, config, isolation), make_request(**arrays))
    for tensor in batch.outputs[0]:
        given = arrays[tensor.name[1:]]
        assert tensor.numpy().dtype == given.dtype
        np.testing.assert_array_equal(tensor.numpy(), given)


def test_a_request_shows_its_id_parameters_sequence_and_wanted_outputs(
    maker: Maker, isolation: str
) -> None:
    source = """
    class TritonPythonModel:
        def execute(self, requests):
            r = requests[0]
            seen = [r.request_id(), json.loads(r.parameters()), r.correlation_id(), r.flags(),
                    r.requested_output_names(), r.model_name(), r.timeout(), r.is_cancelled()]
            response = pb_utils.InferenceResponse(
                [pb_utils.Tensor("OUT", np.array([json.dumps(seen)])),
                 pb_utils.Tensor("OTHER", np.array(["x"]))], parameters={"n": 1, "s": "t"})
            return [response]
    """
    config = make_config("IN:FP32", ">OUT:STRING", ">OTHER:STRING")
    instance = maker.open(source, config, isolation)
    request = changed(
        make_request(IN=np.zeros(1, np.float32)),
        id="abc",
        parameters={"temperature": 0.5, "flag": True, "text": "é"},
        sequence_id="dialogue",
        sequence_start=True,
        sequence_end=True,
        timeout_us=7,
        output_names=("OUT",),
    )
    batch = run(instance, request)
    (output,) = batch.outputs[0]
    assert json.loads(output.packed().objects()[0]) == [
        "abc",
        {"temperature": 0.5, "flag": True, "text": "é"},
        "dialogue",
        3,
        ["OUT"],
        "m",
        7,
        False,
    ]
    assert batch.parameters[0] == {"n": 1, "s": "t"}


def test_initialize_gets_tritons_arguments_as_strings(maker: Maker, isolation: str) -> None:
    source = """
    class TritonPythonModel:
        def initialize(self, args):
            self.args = args
        def execute(self, requests):
            reply = np.array([json.dumps(self.args)])
            return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", reply)])]
    """
    config = make_config("IN:FP32", ">OUT:STRING")
    instance = maker.open(source, config, isolation)
    batch = run(instance, make_request(IN=np.zeros(1, np.float32)))
    arguments = json.loads(batch.outputs[0][0].packed().objects()[0])
    assert {key: arguments[key] for key in arguments if key != "model_config"} == {
        "model_instance_kind": "CPU",
        "model_instance_name": "m_0_0",
        "model_instance_device_id": "0",
        "model_repository": str(maker.files(source).model_dir),
        "model_version": "1",
        "model_name": "m",
    }
    config_seen = json.loads(arguments["model_config"])
    assert config_seen["input"][0]["dims"] == [-1]
    assert config_seen["max_batch_size"] == 0


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("UNKNOWN", BackendFailed),
        ("INTERNAL", BackendFailed),
        ("NOT_FOUND", NotFound),
        ("INVALID_ARG", InvalidRequest),
        ("UNAVAILABLE", Unavailable),
        ("UNSUPPORTED", Unsupported),
        ("ALREADY_EXISTS", InvalidRequest),
        ("CANCELLED", Cancelled),
    ],
)
def test_an_error_response_reaches_its_client_with_text_and_kind(
    maker: Maker, code: str, expected: type[ServingError]
) -> None:
    source = f"""
    class TritonPythonModel:
        def execute(self, requests):
            error = pb_utils.TritonError("not today", pb_utils.TritonError.{code})
            return [pb_utils.InferenceResponse(error=error) if request.request_id() == "bad"
                    else pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.ones((1, 1)))])
                    for request in requests]
    """
    instance = maker.open(source, make_config("IN:FP32", ">OUT:FP64", max_batch_size=4), "none")
    bad, good = (make_request(IN=np.zeros((1, 1), np.float32)) for _ in range(2))
    bad = changed(bad, id="bad")
    batch = run(instance, bad, good)
    assert isinstance(batch.errors[0], expected)
    assert batch.errors[0].message == "not today"
    assert outputs_of(batch, 1)["OUT"].tolist() == [[1.0]]


def test_an_error_response_crosses_the_process_border_and_spares_its_batch_mates(
    maker: Maker,
) -> None:
    source = """
    class TritonPythonModel:
        def execute(self, requests):
            error = pb_utils.TritonError("no such word", pb_utils.TritonError.NOT_FOUND)
            good = pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.ones((1, 1)))])
            return [pb_utils.InferenceResponse(error=error), good]
    """
    instance = maker.open(source, make_config("IN:FP32", ">OUT:FP64", max_batch_size=4))
    batch = run(instance, *(make_request(IN=np.zeros((1, 1), np.float32)) for _ in range(2)))
    assert type(batch.errors[0]) is NotFound
    assert batch.errors[0].message == "no such word"
    assert outputs_of(batch, 1)["OUT"].tolist() == [[1.0]]


def test_an_uncaught_exception_is_hidden_from_the_client_and_logged(
    maker: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    source = """
    class TritonPythonModel:
        def execute(self, requests):
            raise KeyError("secret path")
    """
    instance = maker.open(source, make_config("IN:FP32", ">OUT:FP32"))
    with pytest.raises(BackendFailed) as failure:
        run(instance, make_request(IN=np.zeros(1, np.float32)))
    assert failure.value.message == (
        "model 'm' failed while executing; the server log has the details"
    )
    maker.close(instance)
    assert "secret path" in caplog.text
    assert "Traceback" in caplog.text


def test_an_uncaught_exception_in_the_server_is_left_to_its_instance_thread(maker: Maker) -> None:
    source = """
    class TritonPythonModel:
        def execute(self, requests):
            raise KeyError("secret path")
    """
    instance = maker.open(source, make_config("IN:FP32", ">OUT:FP32"), "none")
    with pytest.raises(KeyError):
        run(instance, make_request(IN=np.zeros(1, np.float32)))


def test_a_model_exception_carries_its_own_text(maker: Maker, isolation: str) -> None:
    source = """
    class TritonPythonModel:
        def execute(self, requests):
            raise pb_utils.TritonModelException("prompt is too long")
    """
    instance = maker.open(source, make_config("IN:FP32", ">OUT:FP32"), isolation)
    with pytest.raises(BackendFailed, match=r"^prompt is too long$"):
        run(instance, make_request(IN=np.zeros(1, np.float32)))


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        ("[]", "returned 0 responses for 2 requests"),
        ("[good, good, good]", "returned 3 responses for 2 requests"),
        ("good", "returned InferenceResponse, expected a list"),
    ],
)
def test_a_wrong_number_of_responses_fails_the_batch_with_both_counts(
    maker: Maker, returned: str, text: str
) -> None:
    source = f"""
    class TritonPythonModel:
        def execute(self, requests):
            good = pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.ones((1, 1)))])
            return {returned}
    """
    instance = maker.open(source, make_config("IN:FP32", ">OUT:FP64", max_batch_size=4), "none")
    with pytest.raises(BackendFailed, match=text):
        run(instance, *(make_request(IN=np.zeros((1, 1), np.float32)) for _ in range(2)))


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ("5", "returned int, not InferenceResponse"),
        ("None", "without taking its response sender"),
    ],
)
def test_a_wrong_response_fails_only_its_request(maker: Maker, item: str, text: str) -> None:
    source = f"""
    class TritonPythonModel:
        def execute(self, requests):
            good = pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.ones((1, 1)))])
            return [{item}, good]
    """
    instance = maker.open(source, make_config("IN:FP32", ">OUT:FP64", max_batch_size=4), "none")
    batch = run(instance, *(make_request(IN=np.zeros((1, 1), np.float32)) for _ in range(2)))
    assert text in batch.errors[0].message
    assert list(outputs_of(batch, 1)) == ["OUT"]


def test_an_output_that_the_config_does_not_list_is_dropped_with_one_warning(
    maker: Maker, isolation: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = """
    class TritonPythonModel:
        def execute(self, requests):
            outputs = [pb_utils.Tensor(name, np.ones(1)) for name in ("OUT", "debug", "more")]
            return [pb_utils.InferenceResponse(outputs) for request in requests]
    """
    instance = maker.open(source, make_config("IN:FP32", ">OUT:FP64"), isolation)
    for _ in range(3):
        batch = run(instance, make_request(IN=np.zeros(1, np.float32)))
        assert list(outputs_of(batch)) == ["OUT"]
    maker.close(instance)
    for name in ("debug", "more"):
        assert caplog.text.count(f"gives output '{name}', which its configuration") == 1


def test_a_failing_initialize_is_a_load_error_with_its_reason(maker: Maker, isolation: str) -> None:
    source = """
    class TritonPythonModel:
        def initialize(self, args):
            raise ValueError("weights are missing")
        def execute(self, requests):
            return []
    """
    with pytest.raises(LoadFailed, match=r"failed to initialize.*weights are missing"):
        maker.open(source, make_config("IN:FP32", ">OUT:FP32"), isolation)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("class Other: pass", "has no class TritonPythonModel"),
        ("class TritonPythonModel: pass", "has no method execute"),
        ("import no_such_module_anywhere", "no_such_module_anywhere"),
        ("def broken(:", "is not a Python file"),
    ],
)
def test_a_file_that_is_no_model_says_what_is_missing(maker: Maker, source: str, text: str) -> None:
    with pytest.raises(LoadFailed, match=text):
        maker.open(source, make_config("IN:FP32", ">OUT:FP32"), "none")


def test_the_models_own_readiness_counts(maker: Maker, isolation: str) -> None:
    source = """
    class TritonPythonModel:
        def is_ready(self):
            return False
        def execute(self, requests):
            return []
    """
    instance = maker.open(source, make_config("IN:FP32", ">OUT:FP32"), isolation)
    assert not instance.is_ready()


def test_a_readiness_hook_that_raises_means_not_ready(
    maker: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    source = """
    class TritonPythonModel:
        def is_ready(self):
            raise OSError("backing service is away")
        def execute(self, requests):
            return []
    """
    instance = maker.open(source, make_config("IN:FP32", ">OUT:FP32"), "none")
    assert not instance.is_ready()
    assert not instance.is_ready()
    assert caplog.text.count("Traceback") == 1


def test_helpers_beside_the_model_can_be_imported_both_ways(maker: Maker) -> None:
    source = """
    from .helper import VALUE
    import helper
    class TritonPythonModel:
        def execute(self, requests):
            reply = np.array([VALUE + helper.VALUE], np.int32)
            return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", reply)])]
    """
    folder = maker.files(source).version_dir
    (folder / "helper.py").write_text("VALUE = 21\n")
    instance = maker.open(source, make_config("IN:FP32", ">OUT:INT32"))
    batch = run(instance, make_request(IN=np.zeros(1, np.float32)))
    assert outputs_of(batch)["OUT"].tolist() == [42]


def test_finalize_is_called_once_at_the_end(maker: Maker, isolation: str) -> None:
    source = """
    class TritonPythonModel:
        def initialize(self, args):
            self.path = args["model_repository"] + "/finalized"
        def execute(self, requests):
            return []
        def finalize(self):
            with open(self.path, "a") as file:
                file.write("x")
    """
    instance = maker.open(source, make_config("IN:FP32", ">OUT:FP32"), isolation)
    path = maker.files(source).model_dir / "finalized"
    assert not path.exists()
    maker.close(instance)
    assert path.read_text() == "x"


def test_the_log_of_the_model_is_the_servers(
    maker: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    source = """
    class TritonPythonModel:
        def initialize(self, args):
            pb_utils.Logger.log_warn("watch out")
            pb_utils.Logger.log("all good", pb_utils.Logger.INFO)
        def execute(self, requests):
            return []
    """
    with caplog.at_level(logging.INFO, logger="trivet"):
        maker.open(source, make_config("IN:FP32", ">OUT:FP32"))
    levels = {record.getMessage(): record.levelname for record in caplog.records}
    assert levels["m_0_0: watch out"] == "WARNING"
    assert levels["m_0_0: all good"] == "INFO"


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("FORCE_CPU_ONLY_INPUT_TENSORS", "maybe", "must be 'yes' or 'no'"),
        ("isolation", "container", "must be 'none' or 'process'"),
        ("load_timeout_s", "soon", "must be a number of seconds"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(
    maker: Maker, key: str, value: str, text: str
) -> None:
    config = make_config("IN:FP32", ">OUT:FP32")
    config.parameters[key].string_value = value
    source = "class TritonPythonModel:\n    def execute(self, requests):\n        return []\n"
    isolation = config.parameters["isolation"].string_value or "process"
    with pytest.raises(InvalidConfig, match=text):
        maker.open(source, config, isolation)


def test_forcing_inputs_to_the_cpu_is_accepted(maker: Maker) -> None:
    config = make_config("IN:FP32", ">OUT:FP32")
    config.parameters["FORCE_CPU_ONLY_INPUT_TENSORS"].string_value = "no"
    instance = maker.open(ADD_SUB.replace("[4]", "[-1]"), config, "none")
    assert instance.is_ready()

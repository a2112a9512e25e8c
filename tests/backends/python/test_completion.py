"""Models that describe themselves with `auto_complete_config`."""

import os

import pytest
from python_models import Maker, make_config

from trivet.backends.api import InvalidConfig, LoadFailed
from trivet.backends.python.backend import BACKEND
from trivet.protos import model_config_pb2 as pb

SOURCE = """
class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        BODY
        return config
    def execute(self, requests):
        return []
"""


def complete(maker: Maker, body: str, config: pb.ModelConfig, isolation: str) -> pb.ModelConfig:
    config.parameters["isolation"].string_value = isolation
    return BACKEND.complete(config, maker.files(SOURCE.replace("BODY", body)))


def test_a_model_without_a_config_gets_what_it_says_of_itself(maker: Maker, isolation: str) -> None:
    body = """
        config.add_input(
            {"name": "A", "data_type": "TYPE_INT64", "dims": [2, -1], "optional": True})
        config.add_output({"name": "B", "data_type": "TYPE_STRING", "dims": [1]})
        config.set_max_batch_size(16)
        config.set_dynamic_batching()
        config.set_model_transaction_policy({"decoupled": True})"""
    completed = complete(maker, body.strip(), pb.ModelConfig(name="m"), isolation)
    assert completed.input[0] == pb.ModelInput(
        name="A", data_type=pb.TYPE_INT64, dims=[2, -1], optional=True
    )
    assert completed.output[0] == pb.ModelOutput(name="B", data_type=pb.TYPE_STRING, dims=[1])
    assert completed.max_batch_size == 16
    assert completed.HasField("dynamic_batching")
    assert completed.model_transaction_policy.decoupled
    assert completed.backend == "python"
    assert completed.parameters["isolation"].string_value == isolation


def test_a_contradiction_of_the_config_file_is_refused(maker: Maker, isolation: str) -> None:
    body = 'config.add_input({"name": "IN", "data_type": "TYPE_INT64", "dims": [-1]})'
    with pytest.raises(InvalidConfig, match="expects datatype TYPE_FP32 for input 'IN'"):
        complete(maker, body, make_config("IN:FP32"), isolation)


def test_the_hook_runs_outside_the_server(maker: Maker) -> None:
    body = 'config.add_input({"name": str(os.getpid()), "data_type": "TYPE_INT64", "dims": [1]})'
    completed = complete(maker, body, pb.ModelConfig(name="m"), "process")
    assert int(completed.input[0].name) != os.getpid()


def test_a_default_config_is_not_marked_as_unisolated(maker: Maker) -> None:
    files = maker.files(SOURCE.replace("BODY", "pass"))
    completed = BACKEND.complete(pb.ModelConfig(name="m"), files)
    assert "isolation" not in completed.parameters


def test_a_hook_that_hangs_is_stopped_after_the_time_limit(maker: Maker) -> None:
    config = pb.ModelConfig(name="m")
    config.parameters["load_timeout_s"].string_value = "0.5"
    with pytest.raises(LoadFailed, match=r"did not load within 0\.5 s .*load_timeout_s"):
        complete(maker, "time.sleep(60)", config, "process")


def test_a_hook_that_kills_its_process_is_a_load_error(maker: Maker) -> None:
    with pytest.raises(LoadFailed, match=r"ended while loading \(exit code 3\)"):
        complete(maker, "os._exit(3)", pb.ModelConfig(name="m"), "process")


def test_a_hook_that_forgets_to_return_the_config_is_told_so(maker: Maker) -> None:
    body = "return None"
    with pytest.raises(InvalidConfig, match=r"must return the pb_utils.ModelConfig, not NoneType"):
        complete(maker, body, pb.ModelConfig(name="m"), "none")


def test_a_model_without_the_hook_is_not_run_to_complete_its_config(maker: Maker) -> None:
    files = maker.files(
        """
        raise RuntimeError("imported")
        class TritonPythonModel:
            def execute(self, requests):
                return []
        """
    )
    completed = BACKEND.complete(make_config("IN:FP32"), files)
    assert [tensor.name for tensor in completed.input] == ["IN"]


def test_a_hook_inherited_from_elsewhere_is_found(maker: Maker) -> None:
    files = maker.files(
        """
        class Base:
            @staticmethod
            def auto_complete_config(config):
                config.set_max_batch_size(3)
                return config
        class TritonPythonModel(Base):
            def execute(self, requests):
                return []
        """
    )
    config = pb.ModelConfig(name="m")
    config.parameters["isolation"].string_value = "none"
    assert BACKEND.complete(config, files).max_batch_size == 3

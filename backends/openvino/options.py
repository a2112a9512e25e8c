"""Turns a config into OpenVINO's properties. Pure.

One stream of as many threads as the placement gives: an instance computes one batch at a time, and
more streams would wait for batches that go to other instances.
"""

from collections.abc import Sequence

from trivet.backends.api import InvalidConfig, Placement, parameter
from trivet.backends.openvino.about import PROPERTIES
from trivet.protos.model_config_pb2 import ModelConfig

_OLDER_NAMES = {"CPU_THREADS_NUM": "INFERENCE_NUM_THREADS", "CPU_THROUGHPUT_STREAMS": "NUM_STREAMS"}
_COUNTS = ("COMPILATION_NUM_THREADS", "INFERENCE_NUM_THREADS")
_HINTS = ("LATENCY", "THROUGHPUT", "CUMULATIVE_THROUGHPUT")
_DEVICES = ("CPU", "AUTO")


def properties(config: ModelConfig, placement: Placement) -> dict[str, str]:
    """What the model is compiled with. Raises InvalidConfig."""
    given = {name: parameter(config, name) for name in PROPERTIES}
    for older, name in _OLDER_NAMES.items():
        given[name] = given[name] or parameter(config, older)
    if flag(config, "HINT_BF16") or flag(config, "ENFORCE_BF16"):
        given["INFERENCE_PRECISION_HINT"] = given["INFERENCE_PRECISION_HINT"] or "bf16"
    # What pins threads to nodes of memory there is left to OpenVINO, which has no such choice now.
    pinning = _one_of(config, "CPU_BIND_THREAD", ("YES", "NO", "NUMA"))
    if pinning in ("YES", "NO"):
        given["ENABLE_CPU_PINNING"] = given["ENABLE_CPU_PINNING"] or pinning
    _one_of(config, "PERFORMANCE_HINT", _HINTS)
    for name in _COUNTS:
        if given[name] and not (given[name].isascii() and given[name].isdigit()):
            raise InvalidConfig(
                f"model '{config.name}': parameter '{name}' must be a whole number from 0, got "
                f"'{given[name]}'"
            )
    streams = given["NUM_STREAMS"].upper()
    if streams and streams not in ("AUTO", "NUMA") and not streams.isdecimal():
        raise InvalidConfig(
            f"model '{config.name}': parameter 'NUM_STREAMS' must be AUTO, NUMA or a whole number, "
            f"got '{streams}'"
        )
    usual = {"INFERENCE_NUM_THREADS": str(max(1, placement.cpu_threads))}
    if not given["PERFORMANCE_HINT"]:
        usual["NUM_STREAMS"] = "1"
    return usual | {name: _value(name, text) for name, text in given.items() if text}


def fixed_rows(config: ModelConfig) -> int:
    """How many rows the model is always given, by Triton's SKIP_OV_DYNAMIC_BATCHSIZE; 0: as many as
    there are. Batches with fewer are padded, whether ENABLE_BATCH_PADDING says so or not. Raises
    InvalidConfig."""
    flag(config, "ENABLE_BATCH_PADDING")
    older = flag(config, "SKIP_DYNAMIC_BATCHSIZE")
    return config.max_batch_size if flag(config, "SKIP_OV_DYNAMIC_BATCHSIZE") or older else 0


def check_device(config: ModelConfig) -> None:
    """What the config asks for that is not there. Raises InvalidConfig."""
    device = parameter(config, "TARGET_DEVICE")
    if device and device.upper() not in _DEVICES:
        raise InvalidConfig(
            f"model '{config.name}': parameter 'TARGET_DEVICE' is '{device}'; backend 'openvino' "
            "computes on the CPU: leave it out"
        )
    if parameter(config, "CPU_EXTENSION_PATH"):
        raise InvalidConfig(
            f"model '{config.name}': parameter 'CPU_EXTENSION_PATH' is not read, as it may point "
            "anywhere; put the library into the model's folder and name it in model_operations "
            "{ op_library_filename }"
        )


def flag(config: ModelConfig, name: str) -> bool:
    """A parameter that is YES or NO. Raises InvalidConfig."""
    return _one_of(config, name, ("YES", "NO")) == "YES"


def _one_of(config: ModelConfig, name: str, values: Sequence[str]) -> str:
    """A parameter in capitals, as it is read in any; empty where it is not given. Raises
    InvalidConfig."""
    text = parameter(config, name)
    if text and text.upper() not in values:
        known = f"{', '.join(values[:-1])} or {values[-1]}"
        raise InvalidConfig(
            f"model '{config.name}': parameter '{name}' must be {known}, got '{text}'"
        )
    return text.upper()


def _value(name: str, text: str) -> str:
    """Triton's configs write "auto"."""
    return text.upper() if name in ("NUM_STREAMS", "PERFORMANCE_HINT") else text

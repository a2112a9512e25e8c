"""Turns a config into OpenVINO's properties. Pure.

One stream of as many threads as the placement gives: an instance computes one batch at a time, and
more streams would wait for batches that go to other instances.
"""

from trivet.backends.api import InvalidConfig, Placement, parameter
from trivet.backends.openvino.about import PROPERTIES
from trivet.protos.model_config_pb2 import ModelConfig

_OLDER_NAMES = {"CPU_THREADS_NUM": "INFERENCE_NUM_THREADS", "CPU_THROUGHPUT_STREAMS": "NUM_STREAMS"}
_COUNTS = ("COMPILATION_NUM_THREADS", "INFERENCE_NUM_THREADS")


def properties(config: ModelConfig, placement: Placement) -> dict[str, str]:
    """What the model is compiled with. Raises InvalidConfig."""
    given = {name: parameter(config, name) for name in PROPERTIES}
    for older, name in _OLDER_NAMES.items():
        given[name] = given[name] or parameter(config, older)
    if flag(config, "HINT_BF16"):
        given["INFERENCE_PRECISION_HINT"] = given["INFERENCE_PRECISION_HINT"] or "bf16"
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


def flag(config: ModelConfig, name: str) -> bool:
    """A parameter that is YES or NO. Raises InvalidConfig."""
    text = parameter(config, name) or "NO"
    if text.upper() not in ("YES", "NO"):
        raise InvalidConfig(
            f"model '{config.name}': parameter '{name}' must be YES or NO, got '{text}'"
        )
    return text.upper() == "YES"


def _value(name: str, text: str) -> str:
    """Triton's configs write "auto"."""
    return text.upper() if name in ("NUM_STREAMS", "PERFORMANCE_HINT") else text

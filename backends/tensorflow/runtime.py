"""TensorFlow in the process of an instance: its threads and devices, and loading a SavedModel."""

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import tensorflow as tf

from trivet.backends.api import InvalidConfig, LoadFailed, ModelFiles, Placement, parameter
from trivet.backends.tensorflow.choice import Chosen
from trivet.protos.model_config_pb2 import ModelConfig

log = logging.getLogger(__name__)

Tensors = Mapping[str, tf.Tensor]
Function = Callable[[Tensors], Tensors]
"""Named tensors to named tensors."""

# What loading raises has no base class of its own.
LOADING_ERRORS: tuple[type[Exception], ...] = (
    tf.errors.OpError,
    AttributeError,
    IndexError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
_UNKNOWN_OPERATION = re.compile(r"Op type not registered '([^']+)'")


def prepare(config: ModelConfig, placement: Placement) -> None:
    """Sets the threads and the device of this process. Raises InvalidConfig, LoadFailed.

    Where models share the server's process, the first one decides.
    """
    threads = max(1, placement.cpu_threads)
    intra = _count(config, "TF_NUM_INTRA_THREADS", threads)
    inter = _count(config, "TF_NUM_INTER_THREADS", threads)
    gpus = tf.config.list_physical_devices("GPU")
    visible = [_gpu(config, placement, gpus)] if placement.kind == "KIND_GPU" else []
    try:
        tf.config.threading.set_intra_op_parallelism_threads(intra)
        tf.config.threading.set_inter_op_parallelism_threads(inter)
        tf.config.set_visible_devices(visible, "GPU")
        for gpu in visible:
            # TensorFlow takes all memory of a GPU otherwise.
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:
        log.warning("model '%s': TensorFlow keeps the threads of its first model", config.name)


def load_operations(config: ModelConfig, files: ModelFiles) -> None:
    """Loads the libraries with a model's own operations. Raises LoadFailed, InvalidConfig."""
    for name in config.model_operations.op_library_filename:
        in_version = (files.version_dir / name).exists()
        path = files.inside(files.version_dir if in_version else files.model_dir, name)
        try:
            tf.load_op_library(str(path))
        except (tf.errors.OpError, RuntimeError, OSError) as error:
            raise LoadFailed(
                f"model '{config.name}': '{name}' (model_operations.op_library_filename) is no "
                f"library of operations for TensorFlow {tf.__version__}: {reason(error, path)}"
            ) from error


def load_signature(config: ModelConfig, files: ModelFiles, chosen: Chosen) -> Function:
    """Raises LoadFailed."""
    folder = chosen.folder
    where = f"model '{config.name}' version {files.version}"
    try:
        loaded = tf.saved_model.load(str(folder), tags=list(chosen.tags))
        function = loaded.signatures[chosen.name]
    except LOADING_ERRORS as error:
        unknown = _UNKNOWN_OPERATION.search(str(error))
        if unknown:
            raise LoadFailed(
                f"{where}: '{folder.name}' uses the operation '{unknown[1]}', which TensorFlow "
                f"{tf.__version__} does not have; put the library that brings it into the model's "
                'folder and name it: model_operations { op_library_filename: "libops.so" }'
            ) from error
        raise LoadFailed(
            f"{where}: TensorFlow {tf.__version__} cannot load '{folder.name}': "
            f"{reason(error, folder)}. If the copy is not whole (variables/ and assets/ belong to "
            "it), copy the folder again"
        ) from error

    def call(tensors: Tensors) -> Tensors:
        # The variables live as long as `loaded`, which the function alone would not keep.
        assert loaded is not None
        outputs: Tensors = function(**tensors)
        return outputs

    return call


def reason(error: Exception, path: Path) -> str:
    """The first line of a library's words, without where the repository lies."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].replace(str(path), path.name).replace(str(path.parent), "").rstrip(".")


def _count(config: ModelConfig, name: str, default: int) -> int:
    text = parameter(config, name) or str(default)
    if not text.isascii() or not text.isdigit():
        raise InvalidConfig(
            f"model '{config.name}': parameter '{name}' must be a whole number from 0, got '{text}'"
        )
    return int(text)


def _gpu(
    config: ModelConfig, placement: Placement, gpus: list[tf.config.PhysicalDevice]
) -> tf.config.PhysicalDevice:
    # Of a device named by UUID the process sees nothing else.
    number = 0 if placement.device_uuid else placement.device_id
    if number < len(gpus):
        return gpus[number]
    raise LoadFailed(
        f"model '{config.name}' asks for GPU {placement.device_id}, but TensorFlow "
        f"{tf.__version__} sees {len(gpus)} GPUs; install one that is built for them, "
        "pip install 'tensorflow[and-cuda]', or use KIND_CPU in instance_group"
    )

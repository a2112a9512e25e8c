"""Texts of TorchScript: lists of str, where other models have tensors.

They have one dimension, as in Triton: either the batch's rows with one text each, or one dimension
without a batch.
"""

import numpy as np

from trivet.backends.api import BackendFailed, InvalidConfig, Shape
from trivet.protos.model_config_pb2 import DataType, ModelConfig, ModelInput, ModelOutput


def check_texts(config: ModelConfig) -> None:
    """Raises InvalidConfig for texts of more dimensions than a list has."""
    tensors: list[ModelInput | ModelOutput] = [*config.input, *config.output]
    for tensor in tensors:
        if tensor.data_type != DataType.TYPE_STRING:
            continue
        shape = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
        if len(shape) > 1 or (config.max_batch_size and list(shape) not in ([], [1])):
            raise InvalidConfig(
                f"model '{config.name}': '{tensor.name}' holds texts, which TorchScript takes and "
                "gives as a list: it needs dims [ 1 ] with batches, one dimension without"
            )


def text_rows(name: str, texts: object, dims: Shape, *, batching: bool) -> np.ndarray:
    """The output that a model's list of str is. Raises BackendFailed for anything else."""
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BackendFailed(
            f"the model returned a {type(texts).__name__} for output '{name}', not a list of str"
        )
    values = np.empty(len(texts), dtype=object)
    values[:] = [text.encode() for text in texts]
    return values.reshape(-1, *dims) if batching else values

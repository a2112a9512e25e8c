"""The contract between server and backends. Knows numpy and the messages, no framework."""

from trivet.backends.api.backend import Backend, BringsExecutor, ComputeOnly, Executor, Instance
from trivet.backends.api.batch import Batch, CopyKind, ResponseSender
from trivet.backends.api.config import from_json, parameter, to_json_dict
from trivet.backends.api.datatype import DataType
from trivet.backends.api.errors import (
    AlreadyExists,
    BackendFailed,
    Cancelled,
    DeadlineExceeded,
    InstanceDied,
    InvalidConfig,
    InvalidRequest,
    LoadFailed,
    ModelNotFound,
    ModelNotReady,
    NotFound,
    QueueFull,
    QueueTimeout,
    ServingError,
    TooLarge,
    Unavailable,
    Unsupported,
)
from trivet.backends.api.files import ModelFiles, Placement
from trivet.backends.api.generate import (
    Chunk,
    Finish,
    GenerateRequest,
    GenerateSink,
    Generator,
    GeneratorInfo,
    Grammar,
    Messages,
    Sampling,
    Token,
    TokenLogprob,
)
from trivet.backends.api.generate_statistics import GenerateStatistics, Measured
from trivet.backends.api.histogram import Histogram
from trivet.backends.api.observer import Observed, Observer
from trivet.backends.api.request import (
    CancelToken,
    InferRequest,
    InferResponse,
    Parameters,
    ParameterValue,
)
from trivet.backends.api.runner import AsksModels, Runner, derive
from trivet.backends.api.signature import Signature, TensorSpec
from trivet.backends.api.sink import Sink
from trivet.backends.api.tensor import PackedBytes, Shape, Tensor

__all__ = [
    "AlreadyExists",
    "AsksModels",
    "Backend",
    "BackendFailed",
    "Batch",
    "BringsExecutor",
    "CancelToken",
    "Cancelled",
    "Chunk",
    "ComputeOnly",
    "CopyKind",
    "DataType",
    "DeadlineExceeded",
    "Executor",
    "Finish",
    "GenerateRequest",
    "GenerateSink",
    "GenerateStatistics",
    "Generator",
    "GeneratorInfo",
    "Grammar",
    "Histogram",
    "InferRequest",
    "InferResponse",
    "Instance",
    "InstanceDied",
    "InvalidConfig",
    "InvalidRequest",
    "LoadFailed",
    "Measured",
    "Messages",
    "ModelFiles",
    "ModelNotFound",
    "ModelNotReady",
    "NotFound",
    "Observed",
    "Observer",
    "PackedBytes",
    "ParameterValue",
    "Parameters",
    "Placement",
    "QueueFull",
    "QueueTimeout",
    "ResponseSender",
    "Runner",
    "Sampling",
    "ServingError",
    "Shape",
    "Signature",
    "Sink",
    "Tensor",
    "TensorSpec",
    "Token",
    "TokenLogprob",
    "TooLarge",
    "Unavailable",
    "Unsupported",
    "derive",
    "from_json",
    "parameter",
    "to_json_dict",
]

"""What the backend for OpenVINO's models says of itself."""

from trivet.backends.api import About, Memory

PROPERTIES = (
    "COMPILATION_NUM_THREADS",
    "INFERENCE_NUM_THREADS",
    "INFERENCE_PRECISION_HINT",
    "NUM_STREAMS",
    "PERFORMANCE_HINT",
)
"""Parameters that are OpenVINO's own properties, handed on as they are."""

ABOUT = About(
    word="openvino",
    backend="trivet.backends.openvino.backend:BACKEND",
    other_platforms=("openvino",),
    suffixes=(".xml",),
    shared_names=("model.onnx",),
    preference=25,
    packages=("openvino",),
    install="trivet[openvino]",
    completes=frozenset({"dynamic_batching", "input", "max_batch_size", "output"}),
    only_reads=True,
    fields=("default_model_filename", "model_operations"),
    parameters=(
        *PROPERTIES,
        # Triton's, and older names of the same
        "CPU_THREADS_NUM",
        "CPU_THROUGHPUT_STREAMS",
        "HINT_BF16",
        "RESHAPE_IO_LAYERS",
    ),
    memory=Memory(weight_suffixes=(".bin", ".onnx"), files_are_least=True),
)

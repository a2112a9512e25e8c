"""What the backend for ONNX models says of itself."""

from trivet.backends.api import About, Memory

CUDA_PARAMETERS = (
    "arena_extend_strategy",
    "cudnn_conv_algo_search",
    "do_copy_in_default_stream",
    "gpu_mem_limit",
)
CLASSES = "classes"
"""Of a classifier's probabilities, in their order; `complete` fills it in."""
SHRINKAGE = "memory.enable_memory_arena_shrinkage"

ABOUT = About(
    word="onnxruntime",
    backend="trivet.backends.onnxruntime.backend:BACKEND",
    platform="onnxruntime_onnx",
    suffixes=(".onnx",),
    preference=10,
    packages=("onnxruntime",),
    install="trivet[onnx]",
    completes=frozenset({"dynamic_batching", "input", "max_batch_size", "output", "parameters"}),
    only_reads=True,
    fields=(
        "default_model_filename",
        "model_operations",
        "optimization.cuda",
        "optimization.execution_accelerators",
        "optimization.graph",
    ),
    parameters=(
        *CUDA_PARAMETERS,
        SHRINKAGE,
        f"{CLASSES}*",
        "enable-global-threadpool",  # a process-wide setting of Triton; here sessions are shared
        "enable_mem_arena",
        "enable_mem_pattern",
        "execution_mode",
        "inter_op_thread_count",
        "intra_op_thread_count",
        "level",
        "session.*",
    ),
    cpu_instances=2,
    memory=Memory(
        weight_suffixes=(".onnx", ".onnx_data", ".data", ".bin"),
        files_are_least=True,
        shared_on=("KIND_CPU",),
    ),
)

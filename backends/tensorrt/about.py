"""What the backend for TensorRT's engines says of itself."""

from trivet.backends.api import About, Memory

ABOUT = About(
    word="tensorrt",
    backend="trivet.backends.tensorrt.backend:BACKEND",
    platform="tensorrt_plan",
    suffixes=(".plan", ".engine", ".trt"),
    preference=20,
    packages=("tensorrt",),
    install="trivet[tensorrt]",
    completes=frozenset({"dynamic_batching", "input", "max_batch_size", "output"}),
    fields=(
        "cc_model_filenames",
        "default_model_filename",
        "input.is_shape_tensor",
        "instance_group.profile",
        "optimization.cuda",
        "output.is_shape_tensor",
    ),
    parameters=("execution_context_allocation_strategy", "version_compatible"),
    builds_engines=True,
    memory=Memory(
        weight_suffixes=(".plan", ".engine", ".trt"), files_are_least=True, shared_on=("KIND_GPU",)
    ),
)

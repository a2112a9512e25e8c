"""What the backend for OpenVINO's models says of itself.

OpenVINO computes in the server. Measured with six dense layers, one thread each, beside a PyTorch
model that computed all the time: 0.24 to 0.31 ms a batch in one process, 0.25 to 0.30 in two, and
PyTorch was slowed by no more than it is by ONNX Runtime (0.98 to 1.15 ms beside 0.93 to 0.96).
"""

from trivet.backends.api import About, Claim, Listing, Match, Memory

PROPERTIES = (
    "COMPILATION_NUM_THREADS",
    "ENABLE_CPU_PINNING",
    "INFERENCE_NUM_THREADS",
    "INFERENCE_PRECISION_HINT",
    "NUM_STREAMS",
    "PERFORMANCE_HINT",
)
"""Parameters that are OpenVINO's own properties, handed on as they are."""

_OF_OPTIMUM = "openvino_model.xml"


def _recognise(listing: Listing) -> Match | None:
    """The only .xml file that is OpenVINO's: others write .xml, too. Of several Optimum's, which
    writes the tokenizer as such, too."""
    names = [name for name in listing.ending(".xml") if b"<net" in listing.head_of(name)[:1024]]
    if _OF_OPTIMUM in names:
        return Match(Claim.ONLY, _OF_OPTIMUM)
    return Match(Claim.ONLY, names[0]) if len(names) == 1 else None


ABOUT = About(
    word="openvino",
    backend="trivet.backends.openvino.backend:BACKEND",
    other_platforms=("openvino",),
    suffixes=(".xml",),
    shared_names=("model.onnx",),
    recognise=_recognise,
    takes_any_name=False,
    preference=25,
    packages=("openvino",),
    install="trivet[openvino]",
    completes=frozenset({"dynamic_batching", "input", "max_batch_size", "output"}),
    only_reads=True,
    fields=("default_model_filename", "model_operations"),
    parameters=(
        *PROPERTIES,
        # Triton's
        "CPU_EXTENSION_PATH",
        "ENABLE_BATCH_PADDING",
        "HINT_BF16",
        "RESHAPE_IO_LAYERS",
        "SKIP_OV_DYNAMIC_BATCHSIZE",
        "TARGET_DEVICE",
        # and older names of the same
        "CPU_BIND_THREAD",
        "CPU_THREADS_NUM",
        "CPU_THROUGHPUT_STREAMS",
        "ENFORCE_BF16",
        "SKIP_DYNAMIC_BATCHSIZE",
    ),
    memory=Memory(weight_suffixes=(".bin", ".onnx"), files_are_least=True),
)

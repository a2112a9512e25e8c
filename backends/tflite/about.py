"""What the backend for TensorFlow Lite's models says of itself.

LiteRT computes in the server: its threads sleep between calls, a call takes a few microseconds, and
files are verified before they are used.
"""

from trivet.backends.api import About, Memory

ABOUT = About(
    word="tflite",
    backend="trivet.backends.tflite.backend:BACKEND",
    other_platforms=("tensorflow_lite",),
    suffixes=(".tflite",),
    preference=22,
    packages=("ai_edge_litert",),
    install="trivet[tflite]",
    completes=frozenset({"dynamic_batching", "input", "max_batch_size", "output"}),
    only_reads=True,
    fields=("default_model_filename",),
    parameters=("signature", "tflite_num_threads"),
    memory=Memory(weight_suffixes=(".tflite",), files_are_least=True),
)

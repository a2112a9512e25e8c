"""What the backends for TensorFlow's SavedModels and for Keras's files say of themselves.

Both run in processes of their own: the thread pools of TensorFlow and of the other frameworks know
nothing of each other, and its memory goes back to the system with its process only.
"""

from trivet.backends.api import About

SAVED_MODEL_FILE = "saved_model.pb"
_THREADS = ("TF_NUM_INTRA_THREADS", "TF_NUM_INTER_THREADS")
_COMPLETES = frozenset({"dynamic_batching", "input", "max_batch_size", "output"})

TENSORFLOW = About(
    word="tensorflow",
    backend="trivet.backends.tensorflow.backend:BACKEND",
    platform="tensorflow_savedmodel",
    names=("model.savedmodel", SAVED_MODEL_FILE),
    preference=20,
    packages=("tensorflow",),
    install="trivet[tensorflow]",
    completes=_COMPLETES,
    only_reads=True,
    own_process=True,
    fields=("default_model_filename", "model_operations"),
    parameters=(
        *_THREADS,
        "MAX_SESSION_SHARE_COUNT",  # Triton's: here each instance has a process
        "TF_GRAPH_TAG",
        "TF_SIGNATURE_DEF",
        "TF_USE_PER_SESSION_THREADS",  # Triton's: here each instance has threads of its own
    ),
)
KERAS = About(
    word="keras",
    backend="trivet.backends.tensorflow.keras_backend:BACKEND",
    suffixes=(".keras", ".h5", ".hdf5"),
    preference=21,
    packages=("keras", "tensorflow"),
    install="trivet[tensorflow]",
    completes=_COMPLETES,
    own_process=True,
    fields=("default_model_filename",),
    parameters=_THREADS,
)

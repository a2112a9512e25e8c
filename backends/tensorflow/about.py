"""What the backends for TensorFlow's SavedModels and for Keras's files say of themselves.

Both run in processes of their own: the thread pools of TensorFlow and of the other frameworks know
nothing of each other, and its memory goes back to the system with its process only.
"""

from trivet.backends.api import About, Claim, Listing, Match

SAVED_MODEL_FILE = "saved_model.pb"
GRAPH_FILE, GRAPH_PLATFORM = "model.graphdef", "tensorflow_graphdef"
"""TensorFlow 1's: the graph alone."""
_THREADS = ("TF_NUM_INTRA_THREADS", "TF_NUM_INTER_THREADS")
_COMPLETES = frozenset({"dynamic_batching", "input", "max_batch_size", "output"})


def _recognise(listing: Listing) -> Match | None:
    """The only folder that is a SavedModel, whatever it is called. Others' files beside it, or
    around it, say more: many repositories have one among other forms of the same model."""
    folders = [each for each in listing.folders_with(SAVED_MODEL_FILE) if each != "."]
    return Match(Claim.CONTENT, folders[0]) if len(folders) == 1 else None


TENSORFLOW = About(
    word="tensorflow",
    backend="trivet.backends.tensorflow.backend:BACKEND",
    platform="tensorflow_savedmodel",
    other_platforms=(GRAPH_PLATFORM,),
    names=("model.savedmodel", SAVED_MODEL_FILE, GRAPH_FILE),
    recognise=_recognise,
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
        "TF_INIT_OPS_FILE",
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

"""What TensorFlow and Keras read from the environment when they are imported."""

import os


def set_environment() -> None:
    """To be called before the first import of either."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only
    os.environ["KERAS_BACKEND"] = "tensorflow"  # tensors here are TensorFlow's

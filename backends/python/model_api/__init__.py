"""The objects that a `model.py` works with, under the names and checks of Triton's backend."""

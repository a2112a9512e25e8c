"""Runs Triton's Python models unchanged: a `model.py` with a class `TritonPythonModel`."""

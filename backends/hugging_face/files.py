"""What the files of a folder are called."""

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
ONNX_PATHS = ("model.onnx", "onnx/model.onnx")
"""Where an ONNX file may lie, the usual place first."""
WEIGHTS = (".safetensors", "pytorch_model.bin")
"""How the names of weights end that torch can load."""

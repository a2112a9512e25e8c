"""The TensorRT backend: serialised engines (`model.plan`), and making them from ONNX models."""

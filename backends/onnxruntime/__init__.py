"""The ONNX Runtime backend."""

import os

# ONNX Runtime sends usage reports to its maker unless this is set before it is imported. A server
# tells nobody what it serves, unless its operator wants that and sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

#!/usr/bin/env bash
# openvino 2026.4.1, ml_dtypes 0.5.4: bfloat16 tensors as numpy arrays.
#
# Situation: a model with a bfloat16 input and output that doubles what it gets; it is asked with an
# array of ml_dtypes.bfloat16, the type that JAX and TensorFlow use.
# Guess: 1.0 and 2.5 become 2.0 and 5.0, whichever way the model is called.
# Seen: with share_inputs=False, the default of InferRequest.infer, the values are converted to float16
# and the bits of that are taken for bfloat16: the model computes with 0.0078125 and 8.0. With
# share_inputs=True, the default of CompiledModel's own call, the bits arrive as they are. The answer has
# dtype float16 and the bits of bfloat16 either way, so the right 2.0 and 5.0 read as 2.0 and 2.312.
# No error, no warning.
# So: hand in openvino.Tensor(array.view(uint16), shape, openvino.Type.bf16), and view outputs of element
# type bf16 as ml_dtypes.bfloat16; their dtype tells nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q openvino==2026.4.1 ml_dtypes==0.5.4
cat > "$folder/bf16.py" <<'END'
import ml_dtypes
import numpy as np
import openvino as ov
from openvino import opset13 as ops

x = ops.parameter([-1], ov.Type.bf16, name="x")
request = ov.compile_model(ov.Model([ops.add(x, x)], [x]), "CPU").create_infer_request()
given = np.array([1, 2.5], ml_dtypes.bfloat16)


def answer(values, **how):
    out = request.infer({0: values}, **how)[0].copy()
    bits = out.view(ml_dtypes.bfloat16).astype(np.float32).tolist()
    print(how, "dtype", out.dtype, "reads as", out.tolist(), "has the bits of", bits)
    assert out.dtype == np.float16, "outputs have another type now"
    return bits


assert answer(given) == [2 * 0.0078125, 2 * 8], "arrays arrive otherwise now"
assert answer(given, share_inputs=True) == [2, 5], "shared arrays arrive otherwise now"
tensor = ov.Tensor(given.view(np.uint16), [2], ov.Type.bf16)
assert answer(tensor) == [2, 5], "a tensor of bits arrives otherwise now"
END
"$folder/venv/bin/python" "$folder/bf16.py"
echo "as described"

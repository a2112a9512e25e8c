"""Every datatype by every way in and out of user code: arrays, DLPack capsules and torch."""

import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from python_models import Maker, make_config, make_request, outputs_of, run

from trivet.backends.api import CheckedRequest, DataType, Tensor

NUMBERS = [each for each in DataType if each is not DataType.BYTES]
READERS = {
    "as_numpy": "given.as_numpy()",
    "to_dlpack": "torch.utils.dlpack.from_dlpack(given.to_dlpack())",
    "torch": "torch.from_dlpack(given)",
    "capsule": "given.to_dlpack()",
    "tensor": "given",
}
WRITERS = {
    "as_numpy": "pb_utils.Tensor('OUT', x)",
    "to_dlpack": "pb_utils.Tensor.from_dlpack('OUT', torch.utils.dlpack.to_dlpack(x))",
    "torch": "pb_utils.Tensor.from_dlpack('OUT', x)",
    "capsule": "pb_utils.Tensor.from_dlpack('OUT', x)",
    "tensor": "pb_utils.Tensor.from_dlpack('OUT', x)",
}
MODEL = """
{imports}
class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            given = pb_utils.get_input_tensor_by_name(request, "IN")
            x = {reader}
            answers.append(pb_utils.InferenceResponse([{writer}]))
        return answers
"""


def values(datatype: DataType) -> np.ndarray:
    if datatype is DataType.BF16:
        return np.array([1, -2.5, 0]).astype(ml_dtypes.bfloat16)
    return np.array([1, 0, 3]).astype(datatype.dtype)


def read_only(array: np.ndarray) -> CheckedRequest:
    """A request whose tensor lies on received bytes, as in the server's process."""
    datatype = DataType.from_numpy(array.dtype)
    inputs = {"IN": Tensor.from_raw("IN", datatype, array.shape, array.tobytes())}
    return CheckedRequest("m", 1, "r1", inputs)


@pytest.mark.parametrize("way", READERS)
@pytest.mark.parametrize("datatype", NUMBERS, ids=lambda each: each.value)
@pytest.mark.parametrize("imports", ["import torch", ""], ids=["torch", "numpy"])
def test_values_come_in_and_go_out_by_every_way(
    maker: Maker, datatype: DataType, way: str, imports: str
) -> None:
    if not imports and "torch" in READERS[way]:
        pytest.skip("no way without torch")
    source = MODEL.format(imports=imports, reader=READERS[way], writer=WRITERS[way])
    name = datatype.config_name.removeprefix("TYPE_")
    instance = maker.open(source, make_config(f"IN:{name}", f">OUT:{name}"), "none")
    array = values(datatype)
    for request in (make_request(IN=array), read_only(array)):
        found = outputs_of(run(instance, request))["OUT"]
        assert found.dtype == array.dtype
        assert found.tolist() == array.tolist()


@pytest.mark.parametrize("way", READERS)
def test_bfloat16_crosses_the_process_border_by_every_way(maker: Maker, way: str) -> None:
    source = MODEL.format(imports="import torch", reader=READERS[way], writer=WRITERS[way])
    instance = maker.open(source, make_config("IN:BF16", ">OUT:BF16"), "process")
    array = values(DataType.BF16)
    assert outputs_of(run(instance, make_request(IN=array)))["OUT"].tolist() == array.tolist()


def test_types_that_another_library_gives_the_interpreter_s_functions_do_not_matter() -> None:
    """As XGBoost and LightGBM do when they are imported."""
    program = (
        "import ctypes; import numpy as np; import trivet.backends.api.dlpack as ours;"
        "theirs = ctypes.pythonapi.PyCapsule_GetPointer;"
        "theirs.argtypes, theirs.restype = [ctypes.py_object, ctypes.c_char_p], ctypes.c_void_p;"
        "print(ours.retyped_bfloat16(np.arange(3).__dlpack__()))"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "False\n"

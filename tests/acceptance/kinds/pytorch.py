"""What PyTorch itself saves."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from acceptance.kind import Kind, Prediction, model_folder

if TYPE_CHECKING:
    import torch

TENSORS = """
max_batch_size: 8
input {{ name: "{input}" data_type: TYPE_FP32 dims: [ 4 ] }}
output {{ name: "{output}" data_type: TYPE_FP32 dims: [ 3 ] }}
"""
CLASS = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x):
        return torch.tanh(self.linear(x))
"""


def _net() -> "torch.nn.Module":
    import torch

    torch.manual_seed(5)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh()).eval()


def _rows() -> "torch.Tensor":
    import torch

    return torch.randn(4, 4, generator=torch.Generator().manual_seed(6))


def _predicted(net: "torch.nn.Module", given: str, gives: str) -> Prediction:
    import torch

    with torch.no_grad():
        outputs = net(_rows()).numpy()
    return Prediction({given: _rows().numpy()}, {gives: np.array(outputs)})


def _write_config(folder: Path, given: str, gives: str, more: str = "") -> None:
    text = TENSORS.format(input=given, output=gives) + more
    (folder.parent / "config.pbtxt").write_text(text)


def _torchscript(place: Path) -> Prediction:
    import torch

    folder, net = model_folder(place), _net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and still what people have
        traced: Any = torch.jit.trace(net, (_rows(),))  # type: ignore[no-untyped-call]
        traced.save(folder / "model.pt")
    _write_config(folder, "INPUT__0", "OUTPUT__0")
    return _predicted(net, "INPUT__0", "OUTPUT__0")


def _exported(place: Path) -> Prediction:
    import torch

    folder, net = model_folder(place), _net()
    rows = {"input": {0: torch.export.Dim("rows")}}
    torch.export.save(
        torch.export.export(net, (_rows(),), dynamic_shapes=rows), folder / "model.pt2"
    )
    return _predicted(net, "input", "tanh")


def _compiled(place: Path) -> Prediction:
    import torch

    folder, net = model_folder(place), _net()
    rows = {"input": {0: torch.export.Dim("rows", min=1, max=8)}}
    exported = torch.export.export(net, (_rows(),), dynamic_shapes=rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch._inductor.aoti_compile_and_package(exported, package_path=str(folder / "model.pt2"))
    _write_config(folder, "ARGS[0]", "RESULT[0]", 'platform: "torch_aoti"')
    return _predicted(net, "ARGS[0]", "RESULT[0]")


def _module(place: Path) -> Prediction:
    import torch
    from safetensors.torch import save_file

    folder, net = model_folder(place), _net()
    (folder / "model.py").write_text(CLASS)
    weights: dict[str, torch.Tensor] = net.state_dict()
    renamed = {f"linear.{name.partition('.')[2]}": value for name, value in weights.items()}
    save_file(renamed, folder / "model.safetensors")
    _write_config(folder, "x", "y")
    return _predicted(net, "x", "y")


KINDS = (
    Kind(
        title="PyTorch, exported (`torch.export.save`)",
        files="`model.pt2`, or the only `.pt2` file",
        backend="pytorch",
        library="PyTorch",
        extra="torch",
        make=_exported,
    ),
    Kind(
        title="PyTorch, compiled (AOTInductor package)",
        files="`model.pt2`",
        backend="pytorch",
        library="PyTorch",
        extra="torch",
        config="inputs and outputs (`ARGS[0]`, `RESULT[0]`)",
        make=_compiled,
        slow=True,
    ),
    Kind(
        title="TorchScript",
        files="`model.pt`, or the only `.pt` file",
        backend="pytorch",
        library="PyTorch",
        extra="torch",
        config="inputs and outputs: PyTorch drops recorded shapes on save; a `List[str]` is "
        "TYPE_STRING with dims `[ 1 ]`",
        make=_torchscript,
    ),
    Kind(
        title="A `torch.nn.Module` and its weights",
        files="`model.py` beside `model.safetensors` or `model.pt`",
        backend="pytorch",
        library="PyTorch",
        extra="torch",
        config="inputs and outputs",
        make=_module,
    ),
)

"""Python modules with weights, torch.compile and AOTInductor packages."""

import shutil
import warnings

import pytest
import torch
from torch_models import (
    ADD_SUB,
    ADD_SUB_SOURCE,
    ONES,
    Home,
    io,
    parameter,
    run_one,
)

from trivet.backends.api import (
    InvalidConfig,
    LoadFailed,
)

WEIGHTED_SOURCE = """
import torch

class Part(torch.nn.Linear):
    pass

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.part = Part(4, 2)

    def forward(self, x):
        return self.part(x)
"""


def weights() -> dict[str, torch.Tensor]:
    return {"part.weight": torch.full((2, 4), 0.5), "part.bias": torch.tensor([1.0, 2.0])}


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_class_is_served_with_the_weights_beside_it(home: Home, name: str) -> None:
    home.path("model.py").write_text(WEIGHTED_SOURCE)
    if name == "model.pt":
        torch.save(weights(), home.path(name))
    else:
        from safetensors.torch import save_file

        save_file(weights(), home.path(name))
    text = 'runtime: "model.py" ' + parameter("MODEL_CLASS_NAME", "Net")

    found = run_one(home.open(text + io("input", "x") + io("output", "y", dims="2")), x=ONES)

    assert found["y"].tolist() == [[3.0, 4.0]]


@pytest.mark.parametrize("options", ['{"backend": "eager"}', '{"disable": "true"}'])
def test_class_is_compiled_as_its_config_says(home: Home, options: str) -> None:
    home.path("model.py").write_text(ADD_SUB_SOURCE)
    text = parameter("TORCH_COMPILE_OPTIONAL_PARAMETERS", options) + ADD_SUB

    found = run_one(home.open(text), a=ONES, b=ONES)

    assert found["OUTPUT__0"].tolist() == [[2.0] * 4]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor needs a C++ compiler")
def test_compiled_package_is_served_by_its_names(home: Home) -> None:
    class Masked(torch.nn.Module):
        def forward(self, x: torch.Tensor, *, mask: torch.Tensor) -> list[torch.Tensor]:
            return [x * mask, x + mask]

    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    exported = torch.export.export(
        Masked(),
        (torch.ones(2, 4),),
        {"mask": torch.ones(2, 4)},
        dynamic_shapes={"x": batch, "mask": batch},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch._inductor.aoti_compile_and_package(exported, package_path=str(home.path("model.pt2")))
    text = 'platform: "torch_aoti"' + io("input", "KWARGS[mask]", "ARGS[0]")
    instance = home.open(text + io("output", "RESULT[1]", "RESULT[0]"))

    found = run_one(instance, **{"ARGS[0]": ONES * 3, "KWARGS[mask]": ONES * 2})

    assert found["RESULT[0]"].tolist() == [[6.0] * 4]
    assert found["RESULT[1]"].tolist() == [[5.0] * 4]


def test_several_classes_need_a_name(home: Home) -> None:
    home.path("model.py").write_text(WEIGHTED_SOURCE)
    torch.save(weights(), home.path("model.pt"))

    with pytest.raises(InvalidConfig, match=r"\['Net', 'Part'\].*MODEL_CLASS_NAME"):
        home.open(io("input", "x") + io("output", "y"))


def test_weights_that_do_not_fit_the_class_are_told(home: Home) -> None:
    home.path("model.py").write_text(WEIGHTED_SOURCE)
    torch.save({"part.weight": torch.ones(2, 3)}, home.path("model.pt"))
    text = parameter("MODEL_CLASS_NAME", "Net") + io("input", "x") + io("output", "y")

    with pytest.raises(LoadFailed, match=r"weights do not fit(.|\n)*part\.bias"):
        home.open(text)

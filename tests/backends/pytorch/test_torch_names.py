"""How the names of a config find the arguments and results of a program."""

import numpy as np
import pytest
import torch
from torch_models import ADD_SUB_SOURCE, ONES, AddSub, ByName, Home, Scaled, io, run_one

from trivet.backends.api import (
    InvalidConfig,
)
from trivet.protos import model_config_pb2 as pb


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (("a", "b"), ("OUTPUT__0", "OUTPUT__1")),
        (("INPUT__0", "INPUT__1"), ("sum", "difference")),
        (("a__0", "b__1"), ("RESULT[0]", "RESULT[1]")),
        (("first", "second"), ("one", "two")),
    ],
)
@pytest.mark.parametrize("kind", ["script", "traced", "exported", "module"])
def test_names_of_triton_are_understood(
    home: Home, kind: str, inputs: tuple[str, str], outputs: tuple[str, str]
) -> None:
    if kind == "script":
        home.put_script(AddSub())
    elif kind == "traced":
        home.put_traced(AddSub(), torch.ones(2, 4), torch.ones(2, 4))
    elif kind == "exported":
        home.put_exported(AddSub(), torch.ones(2, 4), torch.ones(2, 4))
    else:
        home.path("model.py").write_text(ADD_SUB_SOURCE)
    instance = home.open("max_batch_size: 8 " + io("input", *inputs) + io("output", *outputs))

    found = run_one(instance, **{inputs[1]: ONES, inputs[0]: ONES * 5})

    assert found[outputs[0]].tolist() == [[6.0] * 4]
    assert found[outputs[1]].tolist() == [[4.0] * 4]


def test_numbers_count_more_than_the_order_of_the_config(home: Home) -> None:
    home.put_script(AddSub())
    names = ("INPUT__1", "INPUT__0")
    instance = home.open(io("input", *names) + io("output", "OUTPUT__1", "OUTPUT__0"))

    found = run_one(instance, INPUT__0=ONES * 5, INPUT__1=ONES)

    assert found["OUTPUT__1"].tolist() == [[4.0] * 4]


def test_script_with_dicts_is_served_by_name(home: Home) -> None:
    home.put_script(ByName())

    found = run_one(home.open(io("input", "x") + io("output", "half", "twice")), x=ONES)

    assert found["half"].tolist() == [[0.5] * 4]
    assert found["twice"].tolist() == [[2.0] * 4]


def test_argument_with_a_default_needs_no_input(home: Home) -> None:
    home.put_script(Scaled())

    assert run_one(home.open(io("input", "x") + io("output", "y")), x=ONES)["y"][0, 0] == 3


def test_missing_argument_is_told_at_load(home: Home) -> None:
    home.put_script(AddSub())

    with pytest.raises(InvalidConfig, match=r"needs the arguments \['b'\]"):
        home.open(io("input", "a") + io("output", "y"))


@pytest.mark.parametrize("names", [("INPUT__0", "INPUT__2"), ("x", "y", "z"), ("q__0", "r__0")])
def test_inputs_that_do_not_fit_are_told_at_load(home: Home, names: tuple[str, ...]) -> None:
    home.put_script(AddSub())

    with pytest.raises(InvalidConfig, match=r"do not fit the program, which has \['a', 'b'\]"):
        home.open(io("input", *names) + io("output", "y"))


def test_script_without_tensors_in_its_config_is_told_what_to_do(home: Home) -> None:
    home.put_script(AddSub())

    with pytest.raises(InvalidConfig, match=r"list input and output.*torch\.export\.save"):
        home.complete()


def test_exported_program_needs_no_config(home: Home) -> None:
    home.put_exported(AddSub(), torch.ones(2, 4), torch.ones(2, 4))

    config = home.complete()
    found = run_one(home.open(), a=ONES, b=ONES)

    assert config.max_batch_size == 1024
    assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == [
        ("a", pb.TYPE_FP32, [4]),
        ("b", pb.TYPE_FP32, [4]),
    ]
    assert [list(t.dims) for t in config.output] == [[4], [4]]
    assert [array.tolist() for array in found.values()] == [[[2.0] * 4], [[0.0] * 4]]


def test_exported_program_with_a_fixed_batch_does_not_batch(home: Home) -> None:
    home.put_exported(AddSub(), torch.ones(2, 4), torch.ones(2, 4), batch=False)

    config = home.complete()

    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [2, 4]


def test_exported_program_is_compared_with_the_config(home: Home) -> None:
    home.put_exported(AddSub(), torch.ones(2, 4), torch.ones(2, 4))

    with pytest.raises(InvalidConfig, match="input 'a' has data_type TYPE_INT8"):
        home.complete(io("input", "a", "b", kind="INT8"))


def test_exported_tree_of_arguments_is_rebuilt(home: Home) -> None:
    class Tree(torch.nn.Module):
        def forward(
            self, pair: tuple[torch.Tensor, torch.Tensor], *, scale: torch.Tensor
        ) -> dict[str, torch.Tensor]:
            return {"out": (pair[0] - pair[1]) * scale}

    pair = (torch.ones(2, 4), torch.ones(2, 4))
    exported = torch.export.export(Tree(), (pair,), {"scale": torch.ones(2, 4)})
    torch.export.save(exported, home.path("model.pt2"))
    names = [tensor.name for tensor in home.complete().input]
    twos = np.full((2, 4), 2, np.float32)

    found = run_one(home.open(), **dict(zip(names, (twos * 3, twos, twos), strict=True)))

    assert [array.tolist() for array in found.values()] == [[[8.0] * 4] * 2]

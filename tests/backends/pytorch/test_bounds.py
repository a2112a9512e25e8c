"""Bounds that a program was exported with reach its config, its checks and its callers."""

import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.export import Dim
from torch_models import Home, io, run_one

from trivet.backends.api import InvalidConfig, InvalidRequest
from trivet.backends.api.extent import Extent
from trivet.backends.pytorch.bounds import compiled_extents
from trivet.server.repository.validate import validate

CHECKS = """
    if (arg0_1_size[0] < 3) {{
        ss << "input_handles[0]: dim value is too small at 0, "
           << "expected it to be >= {low}, " << "but got: "
           << arg0_1_size[0] << "\\n";
    if (arg0_1_size[0] > 8) {{
        ss << "input_handles[0]: dim value is too large at 0, "
           << "expected to be <= {high}, " << "but got: "
    if (6 != arg1_1_size[2]) {{
        ss << "input_handles[1]: unmatched dim value at 2, "
           << "expected: 6, " << "but got: " << arg1_1_size[2]
    if (1 != arg0_1_stride[1]) {{
        ss << "input_handles[0]: unmatched stride value at 1, "
           << "expected: 1, " << "but got: " << arg0_1_stride[1]
"""


class Twice(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


class Sum(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "m")


def put(home: Home, **dims: Any) -> None:
    """The program y = 2 x of [4, 6] whose dimensions are free as said: batch=, width=."""
    places = {place: dims[name] for place, name in enumerate(("batch", "width")) if name in dims}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(Twice(), (torch.ones(4, 6),), dynamic_shapes=(places,))
        torch.export.save(exported, home.path("model.pt2"))


def rows(count: int, width: int = 6) -> np.ndarray:
    return np.ones((count, width), np.float32)


@pytest.mark.parametrize(
    ("low", "high", "most"), [(1, 5, 4), (0, 4, 4), (2, 1024, 4), (1, None, 4)]
)
def test_a_batch_s_upper_bound_is_the_largest_batch(
    home: Home, low: int, high: int | None, most: int
) -> None:
    put(home, batch=Dim("b", min=low, max=high))
    assert home.complete().max_batch_size == most


@pytest.mark.more_of("R27")
def test_a_batch_s_upper_bound_below_the_usual_batch_is_taken(home: Home) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(
            Twice(), (torch.ones(2, 6),), dynamic_shapes=({0: Dim("b", min=1, max=3)},)
        )
        torch.export.save(exported, home.path("model.pt2"))
    assert home.complete().max_batch_size == 3
    with pytest.raises(InvalidConfig, match=r"max_batch_size is 4, but .*'x' is up to 3"):
        home.complete("max_batch_size: 4")
    assert run_one(home.open("max_batch_size: 3"), x=rows(3)).popitem()[1].shape == (3, 6)


@pytest.mark.more_of("R27")
def test_a_batch_that_must_have_more_than_one_row_is_none(home: Home) -> None:
    put(home, batch=Dim("b", min=3, max=8))
    config = home.complete()
    assert (config.max_batch_size, list(config.input[0].dims)) == (0, [-1, 6])
    with pytest.raises(InvalidConfig, match=r"'x' is 3 to 8 .* a batch may be of one row"):
        home.complete("max_batch_size: 8")


@pytest.mark.more_of("V63")
@pytest.mark.parametrize("count", [2, 9])
def test_a_shape_outside_the_bounds_is_the_caller_s_fault_and_names_them(
    home: Home, count: int
) -> None:
    put(home, batch=Dim("b", min=3, max=8))
    instance = home.open()
    with pytest.raises(InvalidRequest, match=rf"'x' of .*{count} in dimension 0, .* takes 3 to 8"):
        run_one(instance, x=rows(count))
    assert len(run_one(instance, x=rows(8))) == 1


@pytest.mark.parametrize("count", [0, 1, 2])
def test_lower_bounds_that_torch_does_not_keep_are_not_kept(home: Home, count: int) -> None:
    put(home, batch=Dim("b", min=2, max=8))
    assert home.complete().max_batch_size == 4
    assert len(run_one(home.open(), x=rows(count))) == 1


def test_a_bound_of_another_dimension_is_kept_too(home: Home) -> None:
    put(home, batch=Dim("b", max=64), width=2 * Dim("w", min=2, max=5))
    instance = home.open()
    assert len(run_one(instance, x=rows(1, 10))) == 1
    with pytest.raises(InvalidRequest, match="12 in dimension 1, where the model takes 4 to 10"):
        run_one(instance, x=rows(1, 12))
    given = 'name: "x" data_type: TYPE_FP32'
    output = 'output { name: "mul" data_type: TYPE_FP32 dims: [-1] }'
    with pytest.raises(InvalidConfig, match=r"'x' has dims \[12\] .* 4 to 10 in place 0"):
        home.complete(f"max_batch_size: 8 input {{ {given} dims: [12] }} {output}")


def test_sizes_that_must_be_equal_are_the_caller_s_matter(home: Home) -> None:
    both = {0: Dim("b", max=64), 1: Dim("w", max=64)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ones = torch.ones(4, 6)
        exported = torch.export.export(Sum(), (ones, ones), dynamic_shapes=(both, both))
        torch.export.save(exported, home.path("model.pt2"))
    with pytest.raises(InvalidRequest, match="does not take inputs of these shapes"):
        run_one(home.open(), x=rows(1, 5), y=rows(1, 6))


def test_validate_tells_what_contradicts_the_file(home: Home) -> None:
    put(home, batch=Dim("b", max=5))
    config = home.model_dir / "config.pbtxt"
    config.write_text('backend: "pytorch" max_batch_size: 16')
    (found,) = validate(home.model_dir.parent)
    assert (found.severity, found.code) == ("error", "model-file")
    assert "max_batch_size is 16, but the first dimension of 'x' is up to 5" in found.message
    config.write_text('backend: "pytorch" max_batch_size: 5')
    assert validate(home.model_dir.parent) == []


def package(home: Home, low: int, high: int) -> Path:
    """What an AOTInductor package says of itself, without its code."""
    path = home.path("model.pt2")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data/aotinductor/model/x.wrapper.so", b"")
        archive.writestr(
            "m/data/aotinductor/model/x.wrapper.cpp", CHECKS.format(low=low, high=high)
        )
    return path


def test_a_compiled_package_s_bounds_are_in_its_source(home: Home) -> None:
    found = compiled_extents(package(home, 3, 8))
    assert found[0] == (Extent(3, 8),)
    assert found[1] == (Extent(), Extent(), Extent(6, 6))


def test_a_batch_that_a_compiled_package_does_not_take_is_refused(home: Home) -> None:
    """Compiled code checks nothing: it would read beyond its buffers' shapes."""
    package(home, 1, 8)
    text = io("input", "ARGS[0]") + io("output", "RESULT[0]")
    with pytest.raises(InvalidConfig, match=r"max_batch_size is 9, .*'ARGS\[0\]' is up to 8"):
        home.complete("max_batch_size: 9 " + text)
    assert home.complete("max_batch_size: 8 " + text).max_batch_size == 8

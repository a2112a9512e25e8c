"""A request against its model: every refusal has the text clients look for."""

import numpy as np
import pytest

from trivet.backends.api import (
    DataType,
    InferRequest,
    InvalidRequest,
    Signature,
    Tensor,
    TensorSpec,
)
from trivet.server.models.check import check_request


def spec(name: str, *dims: int, optional: bool = False) -> TensorSpec:
    return TensorSpec(name, DataType.FP32, dims, dims, optional=optional)


def signature(*specs: TensorSpec, max_batch_size: int = 8) -> Signature:
    return Signature(
        {each.name: each for each in specs},
        {"OUT": spec("OUT", 1)},
        max_batch_size,
        decoupled=False,
    )


def request(*outputs: str, **shapes: tuple[int, ...]) -> InferRequest:
    tensors = {name: Tensor.of(name, np.zeros(shape, np.float32)) for name, shape in shapes.items()}
    return InferRequest("m", None, "", tensors, outputs)


SIMPLE = signature(spec("A", 16), spec("B", 16))
OPTIONAL = signature(spec("A", 1), spec("B", 1), spec("C", 1), spec("D", 1, optional=True))
LITERAL = signature(spec("A", -1, 2), max_batch_size=0)


@pytest.mark.parametrize(
    ("model", "asked", "batch_size"),
    [
        (SIMPLE, request(A=(1, 16), B=(1, 16)), 1),
        (SIMPLE, request(A=(8, 16), B=(8, 16)), 8),
        (SIMPLE, request("OUT", A=(2, 16), B=(2, 16)), 2),
        (OPTIONAL, request(A=(3, 1), B=(3, 1), C=(3, 1)), 3),
        (LITERAL, request(A=(5, 2)), 1),
        (LITERAL, request(A=(0, 2)), 1),
        (signature(spec("A"), max_batch_size=0), request(A=()), 1),
    ],
)
def test_what_fits_is_let_through_with_its_batch_size(
    model: Signature, asked: InferRequest, batch_size: int
) -> None:
    assert check_request(model, "m", asked) == batch_size


@pytest.mark.parametrize(
    ("model", "asked", "text"),
    [
        (
            SIMPLE,
            request(A=(1, 16)),
            "expected 2 inputs but got 1 inputs for model 'm'. Got input(s) ['A'], but missing "
            "required input(s) ['B']. Please provide all required input(s).",
        ),
        (
            OPTIONAL,
            request(A=(1, 1)),
            "expected number of inputs between 3 and 4 but got 1 inputs for model 'm'. Got "
            "input(s) ['A'], but missing required input(s) ['B','C'].",
        ),
        (SIMPLE, request(A=(1, 16), X=(1, 16)), "unexpected inference input 'X' for model 'm'"),
        (OPTIONAL, request(A=(1, 1), B=(1, 1), D=(1, 1)), "missing required input(s) ['C']"),
        (
            SIMPLE,
            request(A=(1, 17), B=(1, 16)),
            "unexpected shape for input 'A' for model 'm'. Expected [-1,16], got [1,17]. NOTE: "
            "Setting a non-zero max_batch_size",
        ),
        (SIMPLE, request(A=(16,), B=(1, 16)), "Expected [-1,16], got [16]"),
        (
            SIMPLE,
            request(A=(9, 16), B=(9, 16)),
            "inference request batch-size must be <= 8 for 'm'",
        ),
        (SIMPLE, request(A=(0, 16), B=(0, 16)), "batch size 0"),
        (
            SIMPLE,
            request(A=(1, 16), B=(2, 16)),
            "input 'B' batch size does not match other inputs for 'm'",
        ),
        (LITERAL, request(A=(5, 3)), "Expected [-1,2], got [5,3]"),
        (
            SIMPLE,
            request("NO", A=(1, 16), B=(1, 16)),
            "unexpected inference output 'NO' for model 'm'",
        ),
    ],
)
def test_what_does_not_fit_is_refused(model: Signature, asked: InferRequest, text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_request(model, "m", asked)
    assert text in refused.value.message


def test_a_wrong_datatype_is_named_with_the_right_one() -> None:
    given = request(B=(1, 16)).inputs
    other = Tensor.of("A", np.zeros((1, 16), np.int32))
    asked = InferRequest("m", None, "", {**given, "A": other})
    with pytest.raises(InvalidRequest) as refused:
        check_request(SIMPLE, "m", asked)
    assert refused.value.message == (
        "inference input 'A' data-type is 'INT32', but model 'm' expects 'FP32'"
    )

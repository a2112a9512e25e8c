"""One kind of thing that people drop into the folder: how its library makes it, and what it says.

A declaration is short, imports its library within its functions alone, and stands in a module of
`kinds/` in a tuple `KINDS`. The tests drop each into a running server, compare, and remove it; the
table in docs/models.md is made of the same words.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http as triton
from patience import patience
from serving import RunningServer

Array = np.ndarray[Any, Any]
MODEL = "dropped"
"""What the model is called: the folder, or the file without its suffix."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model is asked, and what its own library answers."""

    inputs: Mapping[str, Array] = field(default_factory=dict)
    """By name; texts are arrays of str."""
    outputs: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of model."""

    title: str
    files: str
    """How they lie, in the words of the table."""
    backend: str
    """Its word."""
    library: str
    """That computes it, in the words of the table."""
    extra: str = ""
    """Of trivet, to be installed; empty: none."""
    config: str = "no"
    """Whether it needs one, in the words of the table."""
    make: Callable[[Path], Prediction]
    """Puts what a user would drop into an empty folder, and asks the library."""
    ask: "Callable[[RunningServer, Prediction], Mapping[str, Array]] | None" = None
    """Where it is not asked for tensors by KServe's protocol."""
    flags: tuple[str, ...] = ()
    """Of the server."""
    tolerance: float = 1e-5
    """Relative and absolute."""
    apart: bool = False
    """Whether its library does not bear others in its process: it is made in one of its own."""
    slow: bool = False
    """Whether it takes more than about 5 s; then it is of `make check-all` only."""
    gpu: bool = False
    """Whether it needs one."""

    def answers(self, server: RunningServer, prediction: Prediction) -> Mapping[str, Array]:
        """What the server says to the same."""
        return (self.ask or infer)(server, prediction)


def model_folder(place: Path, version: str = "1") -> Path:
    """The usual place of a model's files: a numbered folder, or with "" the model's folder."""
    folder = place / MODEL / version
    folder.mkdir(parents=True)
    return folder


def infer(server: RunningServer, prediction: Prediction) -> dict[str, Array]:
    """The outputs, by Triton's own client."""
    client = triton.InferenceServerClient(
        server.http, connection_timeout=patience(), network_timeout=patience()
    )
    try:
        inputs = [_input(name, array) for name, array in prediction.inputs.items()]
        wanted = [triton.InferRequestedOutput(name) for name in prediction.outputs]
        answer = client.infer(MODEL, inputs, outputs=wanted)
        return {name: _as_texts(answer.as_numpy(name)) for name in prediction.outputs}
    finally:
        client.close()


def _input(name: str, array: Array) -> Any:
    if array.dtype.kind == "U":
        array = np.array([text.encode() for text in array.flat], object).reshape(array.shape)
    given = triton.InferInput(name, list(array.shape), triton.np_to_triton_dtype(array.dtype))
    given.set_data_from_numpy(array)
    return given


def _as_texts(array: Array) -> Array:
    if array.dtype != object:
        return array
    return np.array([text.decode() for text in array.flat]).reshape(array.shape)


def check_same(kind: Kind, answers: Mapping[str, Array], predicted: Mapping[str, Array]) -> None:
    """That two sets of outputs are alike: numbers to the kind's tolerance, all else equal."""
    assert answers.keys() == predicted.keys()
    for name, expected in predicted.items():
        found = answers[name]
        assert found.shape == expected.shape, name
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(
                found, expected, rtol=kind.tolerance, atol=kind.tolerance, err_msg=name
            )
        else:
            np.testing.assert_array_equal(found, expected, err_msg=name)


def all_kinds() -> dict[str, Kind]:
    """Every kind by `<module>-<number>`, in the order of the table."""
    found: dict[str, Kind] = {}
    for path in sorted((Path(__file__).parent / "kinds").glob("*.py")):
        kinds: tuple[Kind, ...] = import_module(f"acceptance.kinds.{path.stem}").KINDS
        found |= {f"{path.stem}-{number}": kind for number, kind in enumerate(kinds)}
    return found

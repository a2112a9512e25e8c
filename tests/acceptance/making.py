"""Makes a kind's model, where need be in a process of its own: `python -m acceptance.making`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from acceptance.kind import Array, Kind, Prediction, all_kinds
from patience import patience

TESTS = Path(__file__).resolve().parents[1]


def make(identity: str, kind: Kind, place: Path, asked: Path) -> Prediction:
    """Makes it in `place`; `asked` is an empty folder for what crosses between processes."""
    if not kind.apart:
        return kind.make(place)
    paths = os.pathsep.join((str(TESTS), str(TESTS.parent)))
    subprocess.run(
        [sys.executable, "-m", "acceptance.making", identity, place, asked],
        check=True,
        timeout=patience(300),
        env={**os.environ, "PYTHONPATH": paths},
    )
    return Prediction(_read(asked, "inputs"), _read(asked, "outputs"))


def _write(asked: Path, role: str, arrays: dict[str, Array]) -> None:
    (asked / f"{role}.json").write_text(json.dumps(list(arrays)))
    for number, array in enumerate(arrays.values()):
        np.save(asked / f"{role}-{number}.npy", array, allow_pickle=False)


def _read(asked: Path, role: str) -> dict[str, Array]:
    names = json.loads((asked / f"{role}.json").read_text())
    return {
        name: np.load(asked / f"{role}-{number}.npy", allow_pickle=False)
        for number, name in enumerate(names)
    }


def _main(identity: str, place: str, asked: str) -> None:
    prediction = all_kinds()[identity].make(Path(place))
    _write(Path(asked), "inputs", dict(prediction.inputs))
    _write(Path(asked), "outputs", dict(prediction.outputs))


if __name__ == "__main__":
    _main(*sys.argv[1:])

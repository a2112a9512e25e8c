"""The committed protobuf modules are what the generator makes of the .proto files."""

from pathlib import Path

import pytest

from trivet.protos import generate as generator

COMMITTED = Path(generator.__file__).parent


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("protos")
    generator.generate(folder)
    return folder / "trivet" / "protos"


def names(folder: Path) -> set[str]:
    """The generated files of a folder."""
    return {path.name for pattern in ("*_pb2.py", "*_pb2.pyi") for path in folder.glob(pattern)}


def test_every_proto_has_its_modules_and_no_module_is_left_over(made: Path) -> None:
    assert names(COMMITTED) == names(made)
    assert {name.split("_pb2")[0] for name in names(made)} == {
        path.stem for path in COMMITTED.glob("*.proto")
    }


@pytest.mark.parametrize("name", sorted(names(COMMITTED)))
def test_a_committed_module_is_what_the_generator_makes(made: Path, name: str) -> None:
    assert (COMMITTED / name).read_text() == (made / name).read_text()

"""The server that the tables of bad input run against, and what must hold after each row."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_models import write_row_models
from fault_room import MIB, Room
from patience import patience
from serving import RunningServer

ROW_FLAGS = (
    "--allow-client-shm",
    f"--http-header-timeout-s={patience(1)}",
    f"--http-body-timeout-s={patience(1)}",
    "--http-max-connections=200",
    "--grpc-max-message-size=67108864",
    "--max-response-size=33554432",
    "--model-control-mode=explicit",
    "--load-model=*",
)


@pytest.fixture(scope="module")
def room(
    request: pytest.FixtureRequest,
    serve: Callable[..., RunningServer],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Room]:
    """One server for all rows of a module; at the end it must be as it was at the beginning, but
    for MAX_GROWTH_BYTES of memory, which the module may define."""
    repository = write_row_models(tmp_path_factory.mktemp("rows") / "models")
    room = Room(serve(repository, *ROW_FLAGS), repository)
    yield room
    room.assert_unharmed()
    room.assert_settled(getattr(request.module, "MAX_GROWTH_BYTES", 64 * MIB))
    room.close()
    assert room.server.stop() == 0


@pytest.fixture
def unharmed(room: Room) -> Iterator[None]:
    """What every row promises besides its own answer."""
    yield
    room.assert_unharmed()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """An empty model repository."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder

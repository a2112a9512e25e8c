"""One server for all classes of attack, which must be as it was after each of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from auth_site import Keys
from fault_models import write_row_models
from fault_room import Room
from serving import start_server


@pytest.fixture(scope="package")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    repository = write_row_models(tmp_path_factory.mktemp("security") / "models")
    server = start_server(
        repository, "--model-control-mode=explicit", "--load-model=*", "--allow-client-shm"
    )
    room = Room(server, repository)
    yield room
    room.assert_unharmed()
    room.close()
    code = server.stop()
    server.end()
    assert code == 0


@pytest.fixture
def unharmed(room: Room) -> Iterator[None]:
    """What holds after each attack."""
    yield
    room.assert_unharmed()


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """One key for each scope, in a file."""
    made = Keys(tmp_path / "keys.toml")
    for name in ("infer", "admin", "metrics"):
        made.add(name, name)
    return made

"""Every kind of model is dropped into a running server, asked, compared with its library, removed.

What each is stands in `kinds/`; see there for how to add one.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from acceptance.kind import MODEL, Kind, all_kinds, check_same
from acceptance.making import make
from serving import RunningServer, start_server

KINDS = all_kinds()
Open = Callable[[tuple[str, ...]], tuple[RunningServer, Path]]


def marked(identity: str, kind: Kind) -> object:
    marks = [pytest.mark.slow] * kind.slow + [pytest.mark.gpu] * kind.gpu
    return pytest.param(identity, id=identity, marks=marks)


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    """A server by its flags, and its repository; all that have the same share one."""
    servers: dict[tuple[str, ...], tuple[RunningServer, Path]] = {}

    def opened(flags: tuple[str, ...]) -> tuple[RunningServer, Path]:
        if flags not in servers:
            repository = tmp_path_factory.mktemp("repository")
            servers[flags] = (start_server(repository, "--no-progress", *flags), repository)
        return servers[flags]

    yield opened
    for server, _ in servers.values():
        server.end()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("identity", [marked(*each) for each in KINDS.items()])
def test_it_is_served_as_it_lies_and_says_what_its_library_says(
    identity: str, open_server: Open, tmp_path: Path
) -> None:
    kind = KINDS[identity]
    place, asked = tmp_path / "place", tmp_path / "asked"
    place.mkdir()
    asked.mkdir()
    prediction = make(identity, kind, place, asked)
    server, repository = open_server(kind.flags)

    dropped = drop(place, repository)
    try:
        server.wait_until(lambda: is_serving(server), f"serving {kind.title}")
        answers = kind.answers(server, prediction)
    finally:
        for path in dropped:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        server.wait_until(lambda: not of_the_model(server), f"rid of {kind.title}")

    check_same(kind, answers, prediction.outputs)
    assert server.is_ready()


def drop(place: Path, repository: Path) -> list[Path]:
    """Moves what was made into the repository, each thing at once, as a copy into it would."""
    return [path.rename(repository / path.name) for path in sorted(place.iterdir())]


def of_the_model(server: RunningServer) -> list[dict[str, str]]:
    return [entry for (name, _), entry in server.index().items() if name == MODEL]


def is_serving(server: RunningServer) -> bool:
    """Fails at once where the server says why it does not."""
    entries = of_the_model(server)
    reasons = [entry["reason"] for entry in entries if entry.get("state") == "UNAVAILABLE"]
    assert not any(reasons), reasons
    return any(entry.get("state") == "READY" for entry in entries)

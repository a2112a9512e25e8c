"""A mirror over a scripted source, in a folder of the test's."""

from pathlib import Path
from threading import Event

from scripted_source import ScriptedSource

from trivet.server.remote.cache import Cache
from trivet.server.remote.chosen import Chosen
from trivet.server.remote.fetching import Fetcher, Patience
from trivet.server.remote.mirror import Mirror
from trivet.server.remote.tree import Tree

AT_ONCE = Patience(first_s=0.0, most_s=0.0, num_tries=3)


class Room:
    """What one server has of one source."""

    def __init__(
        self,
        source: ScriptedSource,
        folder: Path,
        max_bytes: int = 1 << 30,
        chosen: Chosen | None = None,
    ) -> None:
        self.source = source
        self.stop = Event()
        self.cache = Cache(folder, max_bytes, self.stop)
        self.tree = Tree(source, self.cache)
        fetcher = Fetcher(source, self.cache, self.stop, AT_ONCE)
        self.mirror = Mirror(source, self.cache, self.tree, fetcher, self.stop, chosen)

    def sync(self) -> bool:
        return self.mirror.sync(settle_s=0.0)

    def files(self) -> dict[str, bytes]:
        """What lies in the tree."""
        root = self.tree.root
        return {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in root.rglob("*")
            if path.is_file()
        }

    def close(self) -> None:
        self.stop.set()
        self.tree.close()


def size_of(folder: Path) -> int:
    """The bytes of a cache's files."""
    files = [*folder.glob("blobs/*/*"), *folder.glob("parts/*")]
    return sum(file.stat().st_size for file in files)

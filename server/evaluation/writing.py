"""Files that are replaced as a whole, so that one that was cut is never read."""

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Replaces a file at once. Raises OSError."""
    made = path.with_name(f"{path.name}.{os.getpid()}.part")
    with made.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    made.replace(path)

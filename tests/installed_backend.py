"""A package with a backend, as pip would install it: files on the path and an entry point."""

from pathlib import Path


def install_backend(folder: Path, word: str, target: str, files: dict[str, str]) -> None:
    """Writes the package's files and the entry point `word` = `target` below `folder`, which the
    caller puts on the path."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    info = folder / f"{word}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {word}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[trivet.backends]\n{word} = {target}\n")

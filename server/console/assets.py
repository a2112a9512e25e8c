"""The console's files, as the package has them: read once, then served from memory."""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("assets")
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
PREFIX = "/console/"
_BASE = b"{{base}}"
"""Where a page names the folder of its files."""


@dataclass(frozen=True, slots=True)
class Asset:
    """A file."""

    content: bytes
    packed: bytes
    """The same with gzip."""
    content_type: str


@dataclass(frozen=True, slots=True)
class Assets:
    """All of them."""

    pages: Mapping[str, Asset]
    """By their names without an ending; they are asked for anew each time."""
    files: Mapping[str, Asset]
    """By what stands behind `PREFIX`. A digest of all of them is a part of that, so that browsers
    keep them for good."""


@cache
def read_assets() -> Assets:
    """Reads and packs them. Takes some tens of milliseconds, once."""
    found = {
        path.relative_to(FOLDER).as_posix(): path.read_bytes()
        for path in sorted(FOLDER.rglob("*"))
        if path.suffix in TYPES
    }
    digest = hashlib.sha256()
    for name, content in found.items():
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    base = digest.hexdigest()[:16]
    pages, files = {}, {}
    for name, content in found.items():
        if name.endswith(".html"):
            written = content.replace(_BASE, f"{PREFIX}{base}".encode())
            pages[name.removesuffix(".html")] = _asset(name, written)
        else:
            files[f"{base}/{name}"] = _asset(name, content)
    return Assets(pages, files)


def _asset(name: str, content: bytes) -> Asset:
    return Asset(content, gzip.compress(content, mtime=0), TYPES[Path(name).suffix])

"""What the documents hold that can be checked: commands, what they print, links, flags, paths."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_MARKER = re.compile(r"^[ \t]*<!-- (?:starts|serve|run|prints) -->", re.MULTILINE)
_BLOCK = re.compile(
    r"^<!-- (?P<marker>starts|serve|run|prints) -->\n+```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_ANY_BLOCK = re.compile(
    r"^(?P<marker><!-- \w+ -->\n+)?```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_SILENT = re.compile(r"^(END|.* -t)\n\Z", re.MULTILINE)
_LINK = re.compile(r"\]\((?!\w+://)([^)#\s]*)(?:#([^)\s]*))?\)")
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+(?![\w-])")
_OTHERS = re.compile(r"^docker (.*\\\n)*.*$|\bray start [^`\n]*", re.MULTILINE)
_PLACE = re.compile(
    r"`((?:backends|bench|docs|ensembles|model_repository|protos|server|tests)/[^`]+)`"
)


@dataclass(frozen=True, slots=True)
class Command:
    """A block that a reader is told to run."""

    place: str
    """Document and line."""
    language: str
    text: str
    prints: str
    """What it prints, `...` standing for anything; empty where the document does not say."""
    server: tuple[str, ...] = ()
    """The arguments of the page's own `trivet serve`; empty: it asks what `make serve` serves."""

    @property
    def is_silent(self) -> bool:
        """Whether all that it does is to write files, or to say what is wrong with them."""
        return bool(_SILENT.search(self.text))


@dataclass(frozen=True, slots=True)
class Document:
    """One page of Markdown."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    def commands(self) -> list[Command]:
        """The blocks after `<!-- run -->`, each with the block after `<!-- prints -->`, if any.

        Those behind a block after `<!-- serve -->` ask the server that it starts. One that a block
        after `<!-- starts -->` starts is asked by nobody but the test.
        """
        text = self.text
        blocks = list(_BLOCK.finditer(text))
        assert len(blocks) == len(_MARKER.findall(text)), f"{self.name}: a marker without a block"
        found: list[Command] = []
        server: tuple[str, ...] = ()
        for block in blocks:
            place = f"{self.name}:{text.count(chr(10), 0, block.start()) + 1}"
            if block["marker"] == "serve":
                server = _arguments(block["text"])
            elif block["marker"] == "starts":
                own = _arguments(block["text"])
                found.append(Command(place, "starts", block["text"], "", own))
            elif block["marker"] == "run":
                found.append(Command(place, block["language"], block["text"], "", server))
            else:
                run = found.pop()
                found.append(replace(run, prints=block["text"]))
        return found

    def unmarked(self) -> Iterator[tuple[str, str]]:
        """Language and text of the blocks with commands or code that no marker stands before."""
        for block in _ANY_BLOCK.finditer(self.text):
            if block["language"] in ("sh", "python") and not block["marker"]:
                yield block["language"], block["text"]

    def links(self) -> list[tuple[Path, str]]:
        """Files of the checkout that it links to, and the heading or ''."""
        links = _LINK.findall(self.text)
        return [(self.path.parent / to if to else self.path, anchor) for to, anchor in links]

    def anchors(self) -> set[str]:
        """Its headings as links name them."""
        headings = re.findall(r"^#+ (.+)$", self.text, re.MULTILINE)
        return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}

    def flags(self) -> set[str]:
        """Everything that looks like a long option of a command of ours."""
        return set(_FLAG.findall(_OTHERS.sub("", self.text)))

    def places(self) -> Iterator[str]:
        """Paths of the checkout that it names, `<word>` as a wildcard."""
        for place in _PLACE.findall(self.text):
            yield re.sub(r"<\w+>", "*", place)


def _arguments(text: str) -> tuple[str, ...]:
    """Of a `trivet serve`."""
    program, verb, *arguments = shlex.split(text.replace("\\\n", " "))
    assert (program, verb) == (".venv/bin/trivet", "serve"), text
    return tuple(arguments)


def documents() -> list[Document]:
    """The front page and the docs."""
    return [Document(ROOT / "README.md"), *map(Document, sorted((ROOT / "docs").rglob("*.md")))]

"""The table of docs/models.md, made of the declarations: `make kinds` writes it anew."""

from collections.abc import Iterable
from pathlib import Path

from acceptance.kind import Kind, all_kinds

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
BEGIN = "<!-- kinds: made of tests/acceptance/kinds by `make kinds` -->\n"
END = "<!-- /kinds -->\n"
HEAD = (
    "| Model | Files as they lie | Backend | Computed by | Extra | Config needed |\n"
    "|---|---|---|---|---|---|\n"
)


def table(kinds: Iterable[Kind]) -> str:
    """The rows, without the markers around them."""
    return HEAD + "".join(map(_row, kinds))


def _row(kind: Kind) -> str:
    extra = f"`trivet[{kind.extra}]`" if kind.extra else ""
    cells = (kind.title, kind.files, f"`{kind.backend}`", kind.library, extra, kind.config)
    return f"| {' | '.join(cells)} |\n".replace("|  |", "| |")


def written() -> str:
    """What stands in the page."""
    return PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]


def write() -> None:
    """Puts the rows between the markers."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(before + BEGIN + table(all_kinds().values()) + END + after, encoding="utf-8")


if __name__ == "__main__":
    write()

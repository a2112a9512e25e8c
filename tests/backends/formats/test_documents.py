"""docs/llm.md shows the formats that there are."""

from house_rules import ROOT

from trivet.backends.formats.registry import HARMONY_THOUGHTS, THOUGHT_FORMATS, TOOL_FORMATS


def names(name: str, aliases: tuple[str, ...]) -> str:
    return ", ".join(f"`{each}`" for each in (name, *aliases))


def cell(text: str) -> str:
    """Code in a table: on one line, and without what ends a cell."""
    text = text.replace("\n", "↵").replace("|", "\\|").replace("```", "'''")
    return f"`{text}`"


def tool_rows() -> list[str]:
    return [
        f"| {names(each.name, each.aliases)} | {cell(each.shown)} | {each.used_by} |"
        for each in TOOL_FORMATS
    ]


def thought_rows() -> list[str]:
    rows = [
        f"| {names(each.name, each.aliases)} | {cell(f'{each.opening}...{each.closing}')} |"
        for each in THOUGHT_FORMATS
    ]
    return [*rows, f"| `{HARMONY_THOUGHTS}` | the channel `analysis` |"]


def test_tables_of_formats_are_true() -> None:
    text = (ROOT / "docs" / "llm.md").read_text()
    for rows in (tool_rows(), thought_rows()):
        table = "\n".join(rows)
        assert table in text, f"it should be:\n{table}"

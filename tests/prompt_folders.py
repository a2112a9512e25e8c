"""Folders of prompts, as people write them."""

from pathlib import Path

DESK = """
base = "BASE"
system = "You sort letters of {{ company }}."
template = "Which desk gets this letter?\\n{{ letter }}"
input = "letter"

[variables]
letter = {}
company = { default = "Example Ltd" }

[sampling]
temperature = 0.0
max_tokens = 6

[[examples]]
variables = { letter = "Where is my parcel?" }
rendered = "Which desk gets this letter?\\nWhere is my parcel?"
"""


def write_prompt(
    repository: Path, name: str, text: str = DESK, version: int = 1, *, base: str = "base"
) -> Path:
    """A version of a prompt; returns its folder."""
    folder = repository / name / str(version)
    folder.mkdir(parents=True)
    (folder / "prompt.toml").write_text(text.replace("BASE", base))
    return folder

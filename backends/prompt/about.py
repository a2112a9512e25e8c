"""What the backend for prompts says of itself."""

import tomllib
from pathlib import Path

from trivet.backends.api import About

PROMPT_FILE = "prompt.toml"


def bases_of(path: Path) -> frozenset[str]:
    """The model that a prompt is for; none where the file does not say: a load says so. Raises
    OSError."""
    try:
        base = tomllib.loads(path.read_text(encoding="utf-8")).get("base")
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        return frozenset()
    return frozenset({base}) if isinstance(base, str) and base else frozenset()


ABOUT = About(
    word="prompt_template",
    backend="trivet.backends.prompt.backend:BACKEND",
    names=(PROMPT_FILE,),
    packages=("jinja2",),
    install="trivet[llm]",
    completes=frozenset({"input", "instance_group", "model_transaction_policy", "output"}),
    only_reads=True,
    fields=(),
    parameters=(),
    made_of=bases_of,
)

"""The short names of models, and what else people call a model on the command line."""

import re
import tomllib
from pathlib import Path

import click

_FILE = Path(__file__).with_name("catalogue.toml")
_OF_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def short_names() -> dict[str, str]:
    """Addresses by short name."""
    return tomllib.loads(_FILE.read_text(encoding="utf-8"))


def address_of(name: str) -> str:
    """The address that an address or a short name is. Raises UsageError."""
    if "://" in name:
        return name
    known = short_names()
    if name not in known:
        raise click.UsageError(
            f"'{name}' is no file, no folder and no short name; {whatever_else(name, known)}"
        )
    return known[name]


def whatever_else(name: str, known: dict[str, str] | None = None) -> str:
    """What somebody may have meant by what is neither a file nor a short name."""
    if _OF_HUB.fullmatch(name):
        return f"the model of that name on the hub is hf://{name}"
    names = ", ".join(short_names() if known is None else known)
    return f"short names are {names}, and any model of the hub is hf://ORG/NAME"


def name_for(address: str) -> str:
    """The short name of an address, or the address."""
    return next((name for name, each in short_names().items() if each == address), address)

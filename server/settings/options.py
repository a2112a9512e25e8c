"""What an option of the server has besides its value, for the command line, files and docs."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Option:
    """What the command line shows of an option besides its default and type."""

    group: str
    help: str
    unit: str = ""
    choices: tuple[str, ...] = ()
    multiple: bool = False
    flag: str = ""
    """Where it is not the field's name with dashes."""
    aliases: tuple[str, ...] = ()
    """Other flags for it: older ones of Triton's."""
    bare: str = ""
    """What the flag alone means, of an option that has choices."""
    is_level: bool = False
    """Whether true and false are numbers of it, too."""
    least: int = 0
    """Of a number."""
    most: int | None = None


def option(default: Any, group: str, help: str, **more: Any) -> Any:  # noqa: A002
    """A field of Settings."""
    return field(default=default, metadata={"option": Option(group, help, **more)})


@dataclass(frozen=True, slots=True)
class Row:
    """One option, as the command line and the docs need it."""

    name: str
    option: Option
    default: Any
    flag: str
    env: str

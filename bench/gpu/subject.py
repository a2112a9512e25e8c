"""A program: measures one subject and writes its rows, a JSON object a line, to a file.

A process of its own frees the device's memory behind it, and a fault of the device ends it alone.
"""

import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

from bench.figures import Row


def main() -> None:
    """argv: module, function, file."""
    module, function, target = sys.argv[1:]
    rows: list[Row] = getattr(importlib.import_module(module), function)()
    Path(target).write_text("".join(f"{json.dumps(asdict(row))}\n" for row in rows))


def read(file: Path) -> list[Row]:
    """The rows of a subject that has ended well."""
    return [Row(**json.loads(line)) for line in file.read_text().splitlines()]


if __name__ == "__main__":
    main()

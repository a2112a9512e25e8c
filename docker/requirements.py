"""Prints what trivet needs, without trivet: `python requirements.py llm,onnx`.

It reads the pyproject.toml of the folder that it runs in. The image installs these before it
copies the code, so that a change of code rebuilds two layers.
"""

import re
import sys
import tomllib
from pathlib import Path

_OURSELVES = re.compile(r"trivet\[([\w,-]+)\]")


def requirements(
    project: dict[str, list[str]], extras: dict[str, list[str]], names: str
) -> set[str]:
    """Those of the base and of the extras in `names` (separated by commas), and of their extras.

    Raises SystemExit for an extra that there is not.
    """
    found = set(project["dependencies"])
    waiting = [name for name in names.split(",") if name]
    while waiting:
        name = waiting.pop()
        if name not in extras:
            sys.exit(f"there is no extra '{name}'; there are {', '.join(sorted(extras))}")
        for requirement in extras[name]:
            ourselves = _OURSELVES.fullmatch(requirement)
            if ourselves:
                waiting.extend(ourselves[1].split(","))
            else:
                found.add(requirement)
    return found


if __name__ == "__main__":
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    print(*sorted(requirements(project, project["optional-dependencies"], sys.argv[1])), sep="\n")

"""Which of our modules import which, read from their syntax trees: also for types alone, and within
functions."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

from house_rules import PACKAGES, ROOT

Graph = Mapping[str, frozenset[str]]


def import_graph() -> Graph:
    """The modules of the product and what each of them imports of the others."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    modules = {module_name(path): path for path in paths}
    return {
        name: frozenset(imported(path, name, modules)) - {name} for name, path in modules.items()
    }


def module_name(path: Path) -> str:
    """As it is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("trivet", *(part for part in parts if part != "__init__")))


def imported(path: Path, name: str, modules: Mapping[str, Path]) -> Iterator[str]:
    """The modules among those that are ours; of a package that is imported from, the module that is
    taken out of it."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}, line {node.lineno}: a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield from (each for each in (inner, node.module or "") if each in modules)


def circles(graph: Graph) -> list[set[str]]:
    """Groups of modules each of which reaches each other one: Tarjan's strongly connected
    components, those of a single module left out."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found: list[set[str]] = []

    def visit(name: str) -> None:
        order[name] = lowest[name] = len(order)
        path.append(name)
        for other in sorted(graph[name]):
            if other not in order:
                visit(other)
                lowest[name] = min(lowest[name], lowest[other])
            elif other in path:
                lowest[name] = min(lowest[name], order[other])
        if lowest[name] == order[name]:
            place = path.index(name)
            if len(path) - place > 1:
                found.append(set(path[place:]))
            del path[place:]

    for name in graph:
        if name not in order:
            visit(name)
    return found

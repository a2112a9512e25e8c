"""What the house's rules say of one Python file, read from its syntax tree."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("server", "backends", "ensembles", "protos")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Source:
    """One hand-written module."""

    path: Path

    @property
    def name(self) -> str:
        """Its path from the root of the checkout."""
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    def functions(self) -> Iterator[tuple[str, Function]]:
        """All functions and methods with their dotted names."""
        return ((name, node) for name, node in walk(self.tree) if isinstance(node, Function))

    def broad_handlers(self) -> Iterator[str]:
        """Where everything is caught and not raised again: the dotted names of the functions."""
        for name, node in walk(self.tree):
            if isinstance(node, ast.ExceptHandler) and is_broad(node) and not reraises(node):
                yield name

    def prints(self) -> list[int]:
        """The lines that call `print`."""
        calls = [node for node in ast.walk(self.tree) if isinstance(node, ast.Call)]
        names = [call.func for call in calls if isinstance(call.func, ast.Name)]
        return [name.lineno for name in names if name.id == "print"]


@cache
def sources() -> list[Source]:
    """Every module of the packages that nobody generates."""
    found = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [Source(path) for path in found if not path.name.endswith("_pb2.py")]


def walk(node: ast.AST, name: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Every node below with the dotted name of the function or class it is or lies in."""
    for child in ast.iter_child_nodes(node):
        inner = name
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            inner = f"{name}.{child.name}".lstrip(".")
        yield inner, child
        yield from walk(child, inner)


def is_broad(handler: ast.ExceptHandler) -> bool:
    """Bare, or Exception, or BaseException, alone or in a tuple."""
    if handler.type is None:
        return True
    named = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
    return not named.isdisjoint({"Exception", "BaseException"})


def reraises(handler: ast.ExceptHandler) -> bool:
    """Ends with a bare `raise`, so that nothing is hidden."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None

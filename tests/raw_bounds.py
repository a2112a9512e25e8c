"""Finds, in a test's syntax tree, bounds of time that are numbers: they hold on one machine."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

TESTS = Path(__file__).resolve().parent
CLOCKS = {"monotonic", "perf_counter", "process_time", "thread_time", "time"}
KEYWORDS = {"timeout", "client_timeout", "network_timeout", "connection_timeout"}
LIMITERS = {"wait_for": 1, "timeout": 0, "join": 0, "result": 0, "wait": 0, "settimeout": 0}
"""Functions whose positional argument is a bound, and which one."""
PAUSE_S = 0.5
"""A `wait` of an event that is shorter than this is a pause between two looks, not a bound."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Found = ast.expr


@cache
def constants(path: Path) -> frozenset[str]:
    """The names that a module binds to numbers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(name for statement in tree.body for name in numbers_bound(statement))


def raw_bounds(path: Path) -> list[Found]:
    """The expressions in a file that bound time by a number alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    known = constants(path) | imported(tree)
    return sorted(in_scope(tree, known, frozenset()), key=lambda found: found.lineno)


def imported(tree: ast.Module) -> frozenset[str]:
    """The numbers that come from other modules of the tests."""
    names = set()
    for node in ast.walk(tree):
        source = TESTS / f"{node.module}.py" if isinstance(node, ast.ImportFrom) else None
        if isinstance(node, ast.ImportFrom) and source and source.exists():
            names |= {alias.name for alias in node.names} & constants(source)
    return frozenset(names)


def in_scope(scope: ast.AST, known: frozenset[str], elapsed: frozenset[str]) -> Iterator[Found]:
    """`known`: names of numbers. `elapsed`: names of spans of time that were measured."""
    own = list(nodes_of(scope))
    bound = {name for node in own for name in numbers_bound(node)}
    known = known | bound | default_numbers(scope)
    elapsed = elapsed | {name for node in own for name in spans_bound(node)}
    for node in own:
        if isinstance(node, Function):
            yield from in_scope(node, known, elapsed)
        else:
            yield from (found for found in bounds(node, elapsed) if is_number(found, known))


def nodes_of(scope: ast.AST) -> Iterator[ast.AST]:
    """What lies in a scope; of the functions in it only they themselves."""
    for child in ast.iter_child_nodes(scope):
        if is_no_bound(child, scope):
            continue
        yield child
        if not isinstance(child, Function):
            yield from nodes_of(child)


def is_no_bound(node: ast.AST, parent: ast.AST) -> bool:
    """Markers are pytest's own bounds, which `limits.scale_limit` scales; a loop that goes on for
    so long bounds nothing that is to come."""
    if isinstance(parent, ast.While):
        return node is parent.test and isinstance(node, ast.Compare)
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.timeout"


def default_numbers(scope: ast.AST) -> set[str]:
    """Parameters that are a number unless the caller says otherwise."""
    if not isinstance(scope, Function):
        return set()
    given = scope.args
    places = [*given.posonlyargs, *given.args]
    last = places[len(places) - len(given.defaults) :]
    pairs = [
        *zip(last, given.defaults, strict=True),
        *zip(given.kwonlyargs, given.kw_defaults, strict=True),
    ]
    return {name.arg for name, value in pairs if is_number(value, frozenset())}


def numbers_bound(node: ast.AST) -> set[str]:
    return names_bound(node) if is_number(getattr(node, "value", None), frozenset()) else set()


def spans_bound(node: ast.AST) -> set[str]:
    """Names that are given a difference of two readings of a clock."""
    return names_bound(node) if is_span(getattr(node, "value", None), frozenset()) else set()


def names_bound(node: ast.AST) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else []
    targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
    return {target.id for target in targets if isinstance(target, ast.Name)}


def bounds(node: ast.AST, elapsed: frozenset[str]) -> Iterator[Found]:
    """What bounds time at a node."""
    if isinstance(node, ast.Call):
        yield from (word.value for word in node.keywords if word.arg in KEYWORDS)
        place = LIMITERS.get(called(node), len(node.args))
        yield from (found for found in node.args[place : place + 1] if not is_pause(node, found))
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        yield from ([node.right] if is_clock(node.left) else [])
        yield from ([node.left] if is_clock(node.right) else [])
    elif isinstance(node, ast.Compare):
        yield from upper_bounds(node, elapsed)
    elif isinstance(node, ast.If):
        match node.test:
            case ast.Compare(left=left, ops=[ast.Gt() | ast.GtE()], comparators=[right]):
                yield from ([right] if is_span(left, elapsed) else [])


def upper_bounds(compare: ast.Compare, elapsed: frozenset[str]) -> Iterator[Found]:
    """What a measured span must be less than. It may have to be more: a busy machine sees to it."""
    sides = [compare.left, *compare.comparators]
    for left, compared, right in zip(sides, compare.ops, sides[1:], strict=False):
        if isinstance(compared, ast.Lt | ast.LtE) and is_span(left, elapsed):
            yield right
        if isinstance(compared, ast.Gt | ast.GtE) and is_span(right, elapsed):
            yield left


def is_pause(call: ast.Call, found: ast.expr) -> bool:
    match found:
        case ast.Constant(value=int() | float() as seconds) if called(call) == "wait":
            return seconds <= PAUSE_S
    return False


def called(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


def is_clock(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Call) and not node.args and called(node) in CLOCKS


def is_span(node: ast.AST | None, elapsed: frozenset[str]) -> bool:
    if isinstance(node, ast.Name):
        return node.id in elapsed
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and is_clock(node.left)


def is_number(node: ast.AST | None, known: frozenset[str]) -> bool:
    """Nothing but numbers and the names of numbers."""
    match node:
        case ast.Constant(value=int() | float()) as constant:
            return not isinstance(constant.value, bool)
        case ast.Name(id=name):
            return name in known
        case ast.UnaryOp(operand=operand):
            return is_number(operand, known)
        case ast.BinOp(left=left, right=right):
            return is_number(left, known) and is_number(right, known)
    return False

"""Conditions on tensors and parameters, as `when` and `return_if` of a step have them. Pure.

    SCORE > 0.5 and parameters["mode"] != "fast"      any(MASK)      LANGUAGE in ("de", "fr")

Written in Python's syntax, of which only what is listed here is read; nothing is ever executed.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from trivet.backends.api import DataType, InvalidConfig, InvalidRequest, Parameters, Tensor

MAX_LENGTH = 1000
Values = Mapping[str, Tensor]
Evaluate = Callable[[Values, Parameters], Any]


class _AbsentError(Exception):
    """A tensor or parameter that is asked about is not there: the condition does not hold."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A checked condition."""

    text: str
    tensors: frozenset[str]
    evaluate: Evaluate

    def holds(self, values: Values, parameters: Parameters) -> bool:
        """Whether it is true; False about anything that is not there. Raises InvalidRequest where
        a tensor of several values meets a place for one."""
        try:
            return _truth(self.evaluate(values, parameters), self.text)
        except _AbsentError:
            return False
        except TypeError:
            raise InvalidRequest(
                f"the condition '{self.text}' compares a number with a text in this request"
            ) from None


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of a condition, and whether its values are numbers or texts ("" if not known)."""

    evaluate: Evaluate
    kind: str = ""


def parse_condition(text: str, datatypes: Mapping[str, DataType], where: str) -> Condition:
    """Reads a condition on the given tensors. Raises InvalidConfig, beginning with `where`."""
    reader = _Reader(text, datatypes, where)
    if len(text) > MAX_LENGTH:
        reader.refuse(f"it has {len(text)} characters, at most {MAX_LENGTH} are allowed")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        part = reader.read(tree.body)
    except (SyntaxError, RecursionError, ValueError) as error:
        reader.refuse(f"it cannot be read ({type(error).__name__})")
    return Condition(text, frozenset(reader.tensors), part.evaluate)


_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: np.isin(left, np.array(right)),
    ast.NotIn: lambda left, right: ~np.isin(left, np.array(right)),
}
_REDUCTIONS: Mapping[str, Callable[[Any], Any]] = {
    "all": np.all,
    "any": np.any,
    "len": lambda values: np.shape(values)[0] if np.ndim(values) else 1,
    "max": np.max,
    "mean": np.mean,
    "min": np.min,
    "size": np.size,
    "sum": np.sum,
}
ALLOWED = (
    "tensor names (or tensors[...]), parameters[...], numbers, texts, True, False, < <= > >= == != "
    f"in, and, or, not, present(...), {', '.join(f'{name}(...)' for name in _REDUCTIONS)}"
)


class _Reader:
    """Turns a syntax tree into closures."""

    def __init__(self, text: str, datatypes: Mapping[str, DataType], where: str) -> None:
        self._text = text
        self._datatypes = datatypes
        self._where = where
        self.tensors: set[str] = set()

    def refuse(self, why: str) -> NoReturn:
        """Raises InvalidConfig."""
        shown = self._text if len(self._text) <= 100 else f"{self._text[:97]}..."
        raise InvalidConfig(f"{self._where} is '{shown}': {why}; allowed are {ALLOWED}")

    def read(self, node: ast.expr) -> _Part:
        """Any part of a condition."""
        match node:
            case ast.BoolOp(op=op, values=nodes):
                return self._joined([self.read(each) for each in nodes], isinstance(op, ast.And))
            case ast.UnaryOp(op=ast.Not(), operand=inner):
                part, text = self.read(inner), self._text
                return _Part(lambda v, p: not _truth(part.evaluate(v, p), text))
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return self._constant(-number)
            case ast.Constant(value=bool() | int() | float() | str() as value):
                return self._constant(value)
            case ast.Compare():
                return self._comparison(node)
            case ast.Name(id=name):
                return self._tensor(name)
            case ast.Subscript(value=ast.Name(id=of), slice=ast.Constant(value=str() as name)):
                return self._named(of, name)
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]):
                return self._call(name, argument)
        return self.refuse(f"'{ast.unparse(node)}' is not allowed in a condition")

    def _joined(self, parts: list[_Part], is_and: bool) -> _Part:  # noqa: FBT001 - private
        text = self._text
        return _Part(
            (lambda v, p: all(_truth(part.evaluate(v, p), text) for part in parts))
            if is_and
            else (lambda v, p: any(_truth(part.evaluate(v, p), text) for part in parts))
        )

    def _constant(self, value: object) -> _Part:
        return _Part(lambda _v, _p: value, "text" if isinstance(value, str) else "number")

    def _comparison(self, node: ast.Compare) -> _Part:
        if len(node.ops) != 1:
            self.refuse(f"write '{ast.unparse(node)}' with `and`")
        compare = _COMPARISONS.get(type(node.ops[0]))
        if compare is None:
            self.refuse(f"'{ast.unparse(node)}' compares in a way that is not allowed")
        left, right = self.read(node.left), self._right(node.comparators[0])
        if left.kind and right.kind and left.kind != right.kind:
            self.refuse(f"'{ast.unparse(node)}' compares a {left.kind} with a {right.kind}")
        return _Part(lambda v, p: compare(left.evaluate(v, p), right.evaluate(v, p)), "number")

    def _right(self, node: ast.expr) -> _Part:
        if not isinstance(node, ast.Tuple | ast.List):
            return self.read(node)
        values = [each.value for each in node.elts if isinstance(each, ast.Constant)]
        kinds = {"text" if isinstance(value, str) else "number" for value in values}
        if len(values) != len(node.elts) or len(kinds) != 1:
            self.refuse(f"'{ast.unparse(node)}' must list numbers only, or texts only")
        return _Part(lambda _v, _p: values, kinds.pop())

    def _named(self, of: str, name: str) -> _Part:
        if of == "tensors":
            return self._tensor(name)
        if of != "parameters":
            self.refuse(f"'{of}[...]' is neither tensors[...] nor parameters[...]")

        def parameter(_: Values, parameters: Parameters) -> Any:
            if name not in parameters:
                raise _AbsentError
            return parameters[name]

        return _Part(parameter)

    def _tensor(self, name: str) -> _Part:
        datatype = self._datatypes.get(name)
        if datatype is None:
            self.refuse(f"there is no tensor '{name}' (there are {sorted(self._datatypes)})")
        self.tensors.add(name)

        def tensor(values: Values, _: Parameters) -> Any:
            if name not in values:
                raise _AbsentError
            return _elements(values[name])

        return _Part(tensor, "text" if datatype is DataType.BYTES else "number")

    def _call(self, name: str, argument: ast.expr) -> _Part:
        part = self.read(argument)
        if name == "present":
            return _Part(lambda v, p: _is_present(part, v, p))
        reduction = _REDUCTIONS.get(name)
        if reduction is None:
            self.refuse(f"there is no function '{name}'")
        if part.kind == "text" and name not in ("len", "size"):
            self.refuse(f"'{name}' is for numbers, and '{ast.unparse(argument)}' is text")
        return _Part(lambda v, p: reduction(part.evaluate(v, p)), "number")


def _is_present(part: _Part, values: Values, parameters: Parameters) -> bool:
    try:
        part.evaluate(values, parameters)
    except _AbsentError:
        return False
    return True


def _elements(tensor: Tensor) -> np.ndarray:
    values = tensor.numpy()
    if tensor.datatype is not DataType.BYTES:
        return values
    texts = [v if isinstance(v, str) else v.decode(errors="replace") for v in values.ravel()]
    return np.array(texts, dtype=str).reshape(values.shape)


def _truth(value: Any, text: str) -> bool:
    if np.size(value) != 1:
        raise InvalidRequest(
            f"the condition '{text}' needs one value, and a tensor of shape "
            f"{list(np.shape(value))} has {np.size(value)}; say any(...) or all(...)"
        )
    return bool(np.reshape(value, ()) if isinstance(value, np.ndarray) else value)

"""The sandbox of chat templates, with limits: a template comes from whoever made the model and runs
in the server's process, which one that loops or grows without end would end."""

import functools
import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, cast

import jinja2.ext
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_PROMPT_CHARACTERS = 4_000_000
CPU_S = 2.0
"""Of a processor's time, for one conversation."""
MAX_MADE_BYTES = 256_000_000
"""Of texts and lists that are made on the way, all together."""
MAX_FACTORS = 1 << 28
"""The two largest sizes (in bytes) and numbers that meet in one call, multiplied: what `replace`,
`join`, `indent` and the like can make of them."""
_ITEM_BYTES = 8
_MAX_BITS = 4096
_GROWING = {
    "replace", "join", "indent", "center", "ljust", "rjust", "zfill", "expandtabs", "batch",
    "slice", "wordwrap", "round",
}  # fmt: skip
_WIDE = re.compile(r"\d{5,}|\*|\{[^{}]*:[^{}]*\{")
"""A width or precision of a format that is large, or is to be told."""
_WIDTH = "it formats with a width of its own"
_LOOK_EVERY = 64


class TemplateLimit(Exception):
    """The template wants more than one conversation may take."""


class _Spent(threading.local):
    """What the conversation that this thread renders has taken."""

    def __init__(self) -> None:
        self.until_s = 0.0
        self.made_bytes = 0
        self.ticks = 0


class GenerationTag(jinja2.ext.Extension):
    """`{% generation %}`: tells trainers what the model wrote; the text is as it is without."""

    tags = {"generation"}  # noqa: RUF012  # as jinja2.ext has it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Its body."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox. Each loop, call and operator that may grow is looked at as it happens."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[jinja2.ext.loopcontrols, GenerationTag],
        )
        self._spent = _Spent()
        del self.globals["lipsum"]
        self.filters = {name: self._guarded(name, call) for name, call in self.filters.items()}

    def begin(self) -> None:
        """A conversation is rendered in this thread from here on."""
        self._spent.until_s = time.thread_time() + CPU_S
        self._spent.made_bytes = self._spent.ticks = 0

    # -- what templates call, or what they are rewritten to call -----------------------------------

    def tick(self) -> None:
        """A loop, a macro or a call goes on. Raises TemplateLimit."""
        self._spent.ticks += 1
        if self._spent.ticks % _LOOK_EVERY == 0 and time.thread_time() > self._spent.until_s:
            raise TemplateLimit(f"it takes more than {CPU_S:g} s")

    def concatenate(self, *values: object) -> str:
        """`a ~ b`."""
        return cast(str, self._made("".join(map(str, values))))

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Every call in a template."""
        self.tick()
        bound = getattr(obj, "__wrapped__", obj)  # the sandbox wraps `str.format`
        name, owner = getattr(bound, "__name__", ""), getattr(bound, "__self__", None)
        self._check_call(name, owner, *args, *kwargs.values())
        return self._made(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """The operators that can grow."""
        if operator == "%" and isinstance(left, str) and _WIDE.search(left):
            raise TemplateLimit(_WIDTH)
        if isinstance(left, int) and isinstance(right, int) and operator in ("*", "**"):
            bits = left.bit_length()
            most = bits * abs(right) if operator == "**" else bits + right.bit_length()
            if most > _MAX_BITS:
                raise TemplateLimit(f"it computes a number of {most} bits")
        elif operator == "*":
            _check_factors(left, right)
        return self._made(super().call_binop(context, operator, left, right))

    def _guarded(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            self.tick()
            self._check_call(name, *args, *kwargs.values())
            return self._made(call(*args, **kwargs))

        return guarded

    def _check_call(self, name: str, *values: object) -> None:
        """Before what may make far more than it is given. Raises TemplateLimit."""
        if name in _GROWING:
            _check_factors(*values)
        elif name in ("format", "format_map") and any(
            isinstance(v, str) and _WIDE.search(v) for v in values
        ):
            raise TemplateLimit(_WIDTH)
        elif name == "to_bytes":
            raise TemplateLimit("it makes bytes of numbers")
        elif name == "sum" and len(values) > 2 and isinstance(values[-1], list | tuple):
            raise TemplateLimit("it sums up lists")

    def _made(self, value: Any) -> Any:
        if isinstance(value, str | bytes | list | tuple):
            self._spent.made_bytes += _size(value)
            if self._spent.made_bytes > MAX_MADE_BYTES:
                raise TemplateLimit(f"it makes more than {MAX_MADE_BYTES} bytes on the way")
        return value

    # -- how templates are compiled ----------------------------------------------------------------

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        parsed = super()._parse(source, name, filename)
        return cast(nodes.Template, _Watching().visit(parsed))


def _check_factors(*values: object) -> None:
    *_, second, first = sorted([1, 1, *map(_size, values)])
    if first * second > MAX_FACTORS:
        raise TemplateLimit(f"it makes {first} times {second} bytes")


def _size(value: object) -> int:
    """A number itself; the bytes of a text, or of a list without what its items hold."""
    if isinstance(value, int):
        return abs(value)
    if isinstance(value, str):
        return len(value) if value.isascii() else 4 * len(value)
    if isinstance(value, bytes):
        return len(value)
    return _ITEM_BYTES * len(value) if isinstance(value, list | tuple | dict) else 0


class _Watching(NodeTransformer):
    """Lets loops and macros tick. By attributes of the environment, which no template can set."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        return self._ticking(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._ticking(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        return self._ticking(node)

    def visit_Block(self, node: nodes.Block) -> nodes.Node:
        return self._ticking(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _calling("concatenate", node.nodes, node.lineno)

    def _ticking(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        tick = nodes.ExprStmt(_calling("tick", [], node.lineno), lineno=node.lineno)
        node.body = [tick, *node.body]
        return cast(nodes.Node, node)


def _calling(name: str, values: Iterable[nodes.Expr], line: int) -> nodes.Call:
    attribute = nodes.EnvironmentAttribute(name, lineno=line)
    return nodes.Call(attribute, list(values), [], None, None, lineno=line)

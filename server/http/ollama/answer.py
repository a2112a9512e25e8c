"""A model's output as Ollama's document, or as the lines of its stream."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from trivet.backends.api import Chunk, Finish
from trivet.server.http.ollama.errors import line
from trivet.server.http.ollama.names import iso_time
from trivet.server.http.openai.reasoning import ChoiceParts

Document = dict[str, Any]
Form = Callable[[Document], Document]
"""Puts what a piece of output says where an API's document has it."""


def chat_form(said: Document) -> Document:
    """Of /api/chat."""
    return {"message": {"role": "assistant", "content": "", **said}}


def generate_form(said: Document) -> Document:
    """Of /api/generate, which calls no tools."""
    told = {"thinking": said["thinking"]} if "thinking" in said else {}
    return {"response": said.get("content", ""), **told}


class Answer:
    """Of one request."""

    def __init__(self, model: str, form: Form, parts: ChoiceParts | None, num_prompt: int) -> None:
        """`parts`: takes thoughts and calls out of the text; None: it is content as it is."""
        self._model = model
        self._form = form
        self._parts = parts
        self._num_prompt = num_prompt
        self._num_output = 0
        self._begun_ns = time.monotonic_ns()
        self._first_ns = 0
        self._finish: Finish | None = None
        self._calls: list[Document] = []
        """In pieces as they come: an answer tells them when they are whole."""

    def write(self, chunks: Sequence[tuple[int, Chunk]]) -> bytes:
        """The lines of some chunks."""
        lines: list[bytes] = []
        for _, chunk in chunks:
            said = self._said(chunk)
            if said:
                lines.append(line({**self._head(), **self._form(said), "done": False}))
            if chunk.finish is not None:
                lines.append(line(self.end({})))
        return b"".join(lines)

    def document(self, chunks: Sequence[tuple[int, Chunk]]) -> Document:
        """The whole answer."""
        whole: Document = {}
        for _, chunk in chunks:
            for name, value in self._said(chunk).items():
                whole[name] = whole[name] + value if name in whole else value
        return self.end(whole)

    def idle(self) -> bytes:
        """A line that says nothing, while nothing comes: clients take no empty one."""
        return line({**self._head(), **self._form({}), "done": False})

    def end(self, said: Document) -> Document:
        """The last document."""
        now_ns = time.monotonic_ns()
        first_ns = self._first_ns or now_ns
        reason = "load" if self._finish is None else self._finish.reason
        return {
            **self._head(),
            **self._form(said),
            "done": True,
            "done_reason": reason,
            "total_duration": now_ns - self._begun_ns,
            "load_duration": 0,
            "prompt_eval_count": self._num_prompt,
            "prompt_eval_duration": first_ns - self._begun_ns,
            "eval_count": self._num_output,
            "eval_duration": now_ns - first_ns,
        }

    def _head(self) -> Document:
        return {"model": self._model, "created_at": iso_time(time.time())}

    def _said(self, chunk: Chunk) -> Document:
        """Content, thinking and tool_calls, as far as there are any."""
        self._first_ns = self._first_ns or time.monotonic_ns()
        self._num_output += len(chunk.token_ids)
        self._finish = chunk.finish
        if self._parts is None:
            return {"content": chunk.text} if chunk.text else {}
        said: Document = {}
        for delta in self._parts.deltas(chunk.text, is_last=chunk.finish is not None):
            for name, told in (("content", "content"), ("reasoning", "thinking")):
                if delta.get(name):
                    said[told] = said.get(told, "") + delta[name]
            for call in delta.get("tool_calls", ()):
                self._note(call)
        if chunk.finish is not None and self._calls:
            said["tool_calls"] = [_whole(each) for each in self._calls]
        return said

    def _note(self, call: Document) -> None:
        function = call["function"]
        if "name" in function:
            self._calls.append(dict(function))
        else:
            self._calls[-1]["arguments"] += function["arguments"]


def _whole(function: Document) -> Document:
    """A call whose arguments are an object here; one that was cut off has none."""
    try:
        arguments = orjson.loads(function["arguments"] or "{}")
    except orjson.JSONDecodeError:
        arguments = {}
    return {"function": {"name": function["name"], "arguments": arguments}}

"""Conversations to prompts through a model's chat template: a stranger's code, so sandboxed."""

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import jinja2
import jinja2.meta

from trivet.backends.api import ChatInput, InvalidRequest, LoadFailed, Messages
from trivet.backends.formats.marked_json import HERMES
from trivet.backends.formats.registry import thought_format_of, tool_format_of
from trivet.backends.llm.text.content_parts import ONE_IMAGE, last_text, with_parts
from trivet.backends.llm.text.literal import Literals
from trivet.backends.llm.text.tool_texts import with_object_arguments, with_written_tools
from trivet.backends.templates.limits import (
    MAX_PROMPT_CHARACTERS,
    BoundedEnvironment,
    TemplateLimit,
)

_FAULTS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What expressions of a template raise."""
_REASONING = ("reasoning_content", "thinking", "reasoning")
MAX_INDENT = 16
MAX_FAULT_CHARACTERS = 200
_LIMIT_TEXT = f"the chat template wrote more than {MAX_PROMPT_CHARACTERS} characters"


class TemplateRefusal(Exception):
    """What a template raises on purpose: `raise_exception("...")`."""


class ChatTemplate:
    """A compiled template. Has the functions that Hugging Face's templates count on."""

    def __init__(
        self,
        source: str,
        special_tokens: Mapping[str, str],
        control_texts: Iterable[str] = (),
        tool_source: str = "",
        image_token: str = "",
    ) -> None:
        """`control_texts`: what must not get a meaning when a client writes it. `tool_source`: the
        template for requests with tools, where the model has one of its own. `image_token`: what
        it writes in place of an image, if the model reads any. Raises LoadFailed when a template is
        no Jinja."""
        self._environment = environment = BoundedEnvironment()
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _now
        self.source = source
        self.special_tokens = dict(special_tokens)
        """bos_token and the like."""
        self._literals = Literals(control_texts)
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            text = f"the chat template is broken in line {error.lineno}: {error.message}"
            raise LoadFailed(text) from error
        named = jinja2.meta.find_undeclared_variables(environment.parse(source))
        self._writes_tools = "tools" in named
        # A template that writes no tools tells the model to write calls as here.
        self.tool_call_parser = tool_format_of(source) if self._writes_tools else HERMES.name
        """How the model writes calls of tools; empty: the template does not tell."""
        self.reasoning_parser = thought_format_of(source)
        """The same of what it thinks before it answers."""
        self._for_tools: ChatTemplate | None = None
        if tool_source:
            self._for_tools = ChatTemplate(
                tool_source, special_tokens, control_texts, image_token=image_token
            )
            self.tool_call_parser = self._for_tools.tool_call_parser
        self.shows_images = False
        """Whether it reads contents as parts, and has a place for images."""
        if image_token:
            self.shows_images = True
            self.shows_images = self._counts_one(image_token)

    def render(self, chat: ChatInput) -> str:
        """The prompt: a `Prompt` when a client's text in it looks like special tokens. Raises
        InvalidRequest with the template's own words, or general ones."""
        if self._for_tools is not None and chat.tools is not None:
            return self._for_tools.render(chat)
        messages: Messages = [_with_reasoning(message) for message in chat.messages]
        tools = chat.tools
        try:
            if not self._writes_tools:
                messages, tools = with_written_tools(messages, tools or ()), None
            if self.shows_images:
                messages = with_parts(messages)
            marked = self._literals.marked
            messages = with_object_arguments(marked(messages))
            values = {
                **self.special_tokens,
                "documents": None,  # defined, as transformers has it
                **marked(chat.arguments or {}),
                "messages": messages,
                "tools": marked(tools) if tools is not None else None,
                "add_generation_prompt": chat.add_generation_prompt,
            }
            self._environment.begin()
            text = "".join(_bounded(self._template.generate(values)))
        except TemplateRefusal as error:
            raise InvalidRequest(f"messages: the chat template says: {error}") from None
        except TemplateLimit as error:
            raise InvalidRequest(f"messages: the chat template is not followed: {error}") from None
        except MemoryError:
            raise InvalidRequest("messages: the chat template wants too much memory") from None
        except jinja2.TemplateError as error:
            kind = type(error).__name__
            raise InvalidRequest(
                f"messages: the chat template cannot write them ({kind}): {error}"
            ) from None
        except _FAULTS as error:
            raise InvalidRequest(
                "messages: the chat template cannot write them; look at the types of role and "
                f"content ({type(error).__name__}: {str(error)[:MAX_FAULT_CHARACTERS]})"
            ) from None
        if chat.continue_final_message:
            text = _cut_after_last(text, messages)
        return self._literals.prompt(text)

    def _counts_one(self, image_token: str) -> bool:
        try:
            text = self.render(ChatInput([ONE_IMAGE], add_generation_prompt=True))
        except InvalidRequest:
            return False
        return text.count(image_token) == 1


def _with_reasoning(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """What it thought, under each name by which templates read it, as in transformers."""
    found = next((message[key] for key in _REASONING if message.get(key) is not None), None)
    if found is None:
        return message
    return {"thinking": found, **message, "reasoning_content": found}


def _bounded(pieces: Any) -> Any:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > MAX_PROMPT_CHARACTERS:
            raise InvalidRequest(f"messages: {_LIMIT_TEXT}")
        yield piece


def _cut_after_last(text: str, messages: Messages) -> str:
    """Without what the template wrote behind the last message, so that the model goes on in it."""
    content = last_text(messages[-1].get("content")).strip()
    place = text.rfind(content)
    if not content or place < 0:
        raise InvalidRequest(
            "continue_final_message: the chat template changes the last message, so that it cannot "
            "be continued"
        )
    return text[: place + len(content)]


def _refuse(text: str) -> NoReturn:
    raise TemplateRefusal(text)


def _now(form: str) -> str:
    return dt.datetime.now().astimezone().strftime(form)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002  # transformers' order
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    """The filter of transformers."""
    if isinstance(indent, int):
        indent = min(indent, MAX_INDENT)
    written = (indent if isinstance(indent, str) else "", *(separators or ()))
    if max(map(len, written)) > MAX_INDENT:
        raise TemplateLimit(f"it writes JSON with more than {MAX_INDENT} characters between values")
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )

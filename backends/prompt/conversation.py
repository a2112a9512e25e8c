"""A client's conversation as a version of a prompt has it: what stands before it, and its texts in
the template. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from trivet.backends.api import ChatInput, Messages
from trivet.backends.prompt.prompt_file import Values
from trivet.backends.prompt.templates import PromptTemplates

Message = Mapping[str, Any]


def with_prompt(chat: ChatInput, templates: PromptTemplates, name: str) -> ChatInput:
    """The conversation for the base. Variables are among its arguments. Raises InvalidRequest."""
    file = templates.file
    arguments = dict(chat.arguments or {})
    templates.check_given(arguments, name)
    given = {each: arguments.pop(each) for each in file.variables if each in arguments}
    given.pop(file.input, None)  # that is what the user says
    return replace(
        chat,
        messages=_messages(chat.messages, templates, given),
        tools=chat.tools if chat.tools is not None else file.tools or None,
        arguments=arguments or None,
    )


def _messages(messages: Messages, templates: PromptTemplates, given: Values) -> list[Message]:
    system = templates.system(given)
    own = messages[:1] if messages and messages[0].get("role") == "system" else ()
    told = "\n\n".join(filter(None, (system, *(str(each.get("content") or "") for each in own))))
    first = [{"role": "system", "content": told}] if told else []
    rest = [_templated(each, templates, given) for each in messages[len(own) :]]
    return [*first, *_shots(templates), *rest]


def _shots(templates: PromptTemplates) -> Iterator[Message]:
    for shot in templates.file.shots:
        text = str(shot.variables[templates.file.input])
        yield {"role": "user", "content": templates.user(text, shot.variables)}
        yield {"role": "assistant", "content": shot.answer}


def _templated(message: Message, templates: PromptTemplates, given: Values) -> Message:
    """What a user says goes through the template: also what was said before, so that a conversation
    begins as it began."""
    content = message.get("content")
    if message.get("role") != "user" or not content:
        return message
    if isinstance(content, str):
        return {**message, "content": templates.user(content, given)}
    texts = [part for part in content if part.get("type") == "text"]
    others = [part for part in content if part.get("type") != "text"]
    text = templates.user("\n".join(str(part.get("text", "")) for part in texts), given)
    return {**message, "content": [*others, {"type": "text", "text": text}]}


def as_plain_text(chat: ChatInput) -> str:
    """A conversation for a base that has no chat template: its texts, one below the other."""
    return "\n\n".join(str(message.get("content") or "") for message in chat.messages)

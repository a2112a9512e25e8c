"""One request's way through a prompt: the conversation is written here, the base does the rest."""

import asyncio
from dataclasses import replace
from typing import Any

import orjson

from trivet.backends.api import (
    NO_ACCOUNT,
    Account,
    ChatInput,
    GenerateRequest,
    GenerateSink,
    Generator,
    GeneratorInfo,
    Grammar,
)
from trivet.backends.api.delegating import DelegatingTokens
from trivet.backends.prompt.conversation import as_plain_text, with_prompt
from trivet.backends.prompt.counting import Counting
from trivet.backends.prompt.prompt_file import NOTHING_GIVEN, Values
from trivet.backends.prompt.templates import PromptTemplates

_FORMAT = "response_schema"


class Composed(str):
    """A plain prompt that was made of a conversation, which has all special tokens already."""

    __slots__ = ("rendered",)
    rendered: str
    """As the base's template wrote it, with what the base knows about it."""


class PromptGenerator(DelegatingTokens):
    """A Generator over one version of the base: what one request gets of a prompt."""

    def __init__(
        self,
        name: str,
        templates: PromptTemplates,
        base: Generator,
        counting: Counting,
        given: Values = NOTHING_GIVEN,
    ) -> None:
        """`given`: variables of a plain prompt."""
        self._name = name
        self._templates = templates
        self._base = base
        self._counting = counting
        self._given = given

    @property
    def _inner(self) -> Generator:
        return self._base

    @property
    def info(self) -> GeneratorInfo:
        """See Generator. The base's, with what the prompt recommends."""
        inner, file = self._base.info, self._templates.file
        return replace(
            inner,
            sampling_defaults={**inner.sampling_defaults, **file.sampling},
            parent=file.base,
            tools=file.tools or inner.tools,
            response_schema=file.response_schema or inner.response_schema,
        )

    def generate(self, request: GenerateRequest, sink: GenerateSink) -> None:
        """See Generator."""
        file, sampling = self._templates.file, request.sampling
        changes: dict[str, Any] = {}
        if file.stop:
            changes["stop"] = tuple(dict.fromkeys((*sampling.stop, *file.stop)))
        if file.response_schema is not None and sampling.grammar is None:
            schema = orjson.dumps(file.response_schema).decode()
            changes["grammar"] = Grammar("json_schema", schema, _FORMAT)
        if changes:
            request.sampling = replace(sampling, **changes)
        self._base.generate(request, self._counting.sink(request, sink))

    async def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """See Generator."""
        if isinstance(text, Composed):
            return await self._base.encode(text.rendered, add_special_tokens=False)
        return await self._base.encode(text, add_special_tokens=add_special_tokens)

    async def render(self, chat: ChatInput, account: Account = NO_ACCOUNT, /) -> str:
        """See Generator."""
        made = await asyncio.to_thread(with_prompt, chat, self._templates, self._name)
        return await self._base.render(made, account)

    async def compose(self, prompt: str, account: Account = NO_ACCOUNT, /) -> str:
        """See Generator. A plain prompt is what a user says."""
        asked = ChatInput([{"role": "user", "content": prompt}], arguments=self._given)
        made = await asyncio.to_thread(with_prompt, asked, self._templates, self._name)
        if not self._base.info.chat_template:
            return await self._base.compose(as_plain_text(made), account)
        rendered = await self._base.render(made, account)
        composed = Composed(rendered)
        composed.rendered = rendered
        return composed

"""A chat on its way to a model: its prompt, and the outputs that go on with it."""

from dataclasses import replace

from trivet.backends.api import (
    ChatInput,
    Choices,
    GenerateRequest,
    Generator,
    Image,
    InvalidRequest,
    Sampling,
)
from trivet.server.http.generation import Outputs
from trivet.server.http.openai.chat_fields import ChatFields
from trivet.server.http.openai.chat_tools import ChatTools
from trivet.server.http.openai.messages import plain_messages
from trivet.server.http.openai.prompts import seeded, truncated


class Conversation:
    """One request's, in whichever API it came."""

    def __init__(self, fields: ChatFields, generator: Generator, answer_id: str) -> None:
        """`fields` are checked. Raises InvalidRequest, Unsupported."""
        fields.take_over(generator.info)
        self.outputs = Outputs()
        self.tools = ChatTools(fields, generator.info)
        self.prompt: list[int] = []
        """Once it is read."""
        self.num_choices = fields.n or 1
        self._fields = fields
        self._generator = generator
        self._id = answer_id
        self._images: list[Image] = []

    async def read(self) -> None:
        """Renders and tokenises. Raises InvalidRequest."""
        fields = self._fields
        chat = ChatInput(
            plain_messages(fields.messages),
            tools=fields.shown_tools(),
            add_generation_prompt=fields.add_generation_prompt,
            continue_final_message=fields.continue_final_message,
            arguments=fields.template_arguments(),
        )
        self._images = chat.images
        if self._images and fields.truncate_prompt_tokens is not None:
            raise InvalidRequest("truncate_prompt_tokens: it is not offered with images")
        text = await self._generator.render(chat)
        self.tools.note_prompt(text)
        ids = await self._generator.encode(text, add_special_tokens=fields.add_special_tokens)
        self.prompt = truncated(
            ids, fields.truncate_prompt_tokens, self._generator, fields.truncation_side
        )

    async def start(self) -> None:
        """Reads and submits. Raises InvalidRequest."""
        sampling = self._sampling()
        await self.read()
        sampling = self._recommended(sampling)
        forced = self.tools.grammar()
        if forced is not None:
            sampling = replace(sampling, grammar=forced)
        choices = Choices(self.num_choices)
        for index in range(self.num_choices):
            request = GenerateRequest(
                self._id,
                self.prompt,
                seeded(sampling, index),
                priority=self._fields.priority,
                cache_salt=self._fields.cache_salt or "",
                choices=choices,
                images=self._images,
            )
            self.outputs.start(self._generator, request)

    def _sampling(self) -> Sampling:
        fields, info = self._fields, self._generator.info
        fields.check_logprobs(info.max_logprobs)
        num_top = (fields.top_logprobs or 0) if fields.logprobs else None
        sampling = fields.sampling(fields.token_limit, num_top, info.sampling_defaults)
        if self.tools.keeps_marks:
            sampling = replace(sampling, skip_special_tokens=False)
        return sampling

    def _recommended(self, sampling: Sampling) -> Sampling:
        """With the limit that the model's makers recommend, where the request has none; a limit of
        its own is cut where it may be."""
        limit: float | None = self._fields.token_limit
        if limit is None:
            limit = self._generator.info.sampling_defaults.get("max_tokens")
        elif not self._fields.fits_limit:
            return sampling
        if limit is None:
            return sampling
        room = self._generator.info.max_model_len - len(self.prompt)
        return replace(sampling, max_tokens=max(min(int(limit), room), 1))

"""A request on its way: from its fields, over the conversation that it goes on with, to outputs."""

from functools import partial
from typing import Any

import orjson

from trivet.backends.api import Generator, InvalidRequest
from trivet.server.core import Generators
from trivet.server.http.beginnings import of_messages
from trivet.server.http.openai.chat_fields import ChatFields
from trivet.server.http.openai.conversation import Conversation
from trivet.server.http.openai.prompts import named_generator
from trivet.server.http.openai.responses.chat_form import chat_of
from trivet.server.http.openai.responses.document import unchanging
from trivet.server.http.openai.responses.fields import AskedFields, ResponseFields
from trivet.server.http.openai.responses.items import Item, as_items, kept, kind_of, new_id
from trivet.server.http.openai.responses.output import OutputItems
from trivet.server.http.openai.responses.store import Record, ResponseStore
from trivet.server.http.openai.responses.telling import Telling
from trivet.server.http.routes import Call


class Asking:
    """One of them. Raises what a chat raises."""

    def __init__(
        self, asked: AskedFields, core: Generators, store: ResponseStore, owner: bytes, call: Call
    ) -> None:
        """Raises InvalidRequest, Unsupported, ModelNotFound, ModelNotReady."""
        self.id = new_id("resp")
        self._asked = asked
        self._owner = owner
        self._new = _resolved(as_items(asked.input), store, owner)
        before = store.conversation(asked.previous_response_id, owner)
        self._chat = chat_of(asked, before, self._new)
        call.beginning = partial(of_messages, self._chat.messages)
        asked.model, self._generator = named_generator(core, asked.model, call)
        self._told = call.told
        self.conversation = Conversation(self._chat, self._generator, self.id)

    async def read(self) -> int:
        """Makes the prompt; how many tokens it has. Raises InvalidRequest."""
        await self.conversation.read()
        return len(self.conversation.prompt)

    async def start(self) -> None:
        """Makes the prompt and submits it. Raises InvalidRequest."""
        if self._asked.truncation == "auto":
            await _shorten(self._chat, self.conversation, self._generator)
        await self.conversation.start()

    def telling(self, asked: ResponseFields, *, is_kept: bool) -> Telling:
        """What becomes of it; once it is started."""
        head = unchanging(self.id, asked, self._generator.info, is_kept=is_kept)
        output = OutputItems(
            self.conversation.tools.choice(),
            as_summary=asked.summarises,
            is_scored=asked.tells_logprobs,
        )
        return Telling(
            head,
            output,
            len(self.conversation.prompt),
            self._told,
            is_queued=bool(asked.background),
            is_streamed=bool(asked.stream),
        )

    def record(self) -> Record:
        """What is kept of it, without its end."""
        items = [kept(item) for item in self._new]
        return Record(
            self.id,
            self._owner,
            self._asked.previous_response_id,
            orjson.dumps(items),
            item_ids=tuple(item["id"] for item in items),
        )


def _resolved(items: list[Item], store: ResponseStore, owner: bytes) -> list[Item]:
    """With the items themselves where references stand for them. Raises InvalidRequest."""
    wanted = {str(item.get("id")) for item in items if kind_of(item) == "item_reference"}
    if not wanted:
        return items
    found = store.items(wanted, owner)
    used: set[str] = set()
    resolved: list[Item] = []
    for number, item in enumerate(items):
        if kind_of(item) != "item_reference":
            resolved.append(item)
            continue
        item_id = str(item.get("id"))
        # Each once: a small request must not become as large as it likes.
        there = found.pop(item_id, None)
        if there is None:
            why = "was referred to before" if item_id in used else "is not kept here"
            raise InvalidRequest(
                f"input[{number}].id: the item {item_id[:64]!r} {why}; give the item itself"
            )
        used.add(item_id)
        resolved.append(there)
    return resolved


async def _shorten(chat: ChatFields, conversation: Conversation, generator: Generator) -> None:
    """Leaves out the oldest turns of a conversation that does not fit, as few as will do."""
    room = generator.info.max_model_len - (chat.token_limit or 1)
    whole: list[dict[str, Any]] = chat.messages
    head = [message for message in whole[:1] if message["role"] in ("system", "developer")]
    # Only at a user's turn does a conversation begin: calls and their results stay together.
    turns = [place for place, each in enumerate(whole) if each["role"] == "user"]

    async def fits(number: int) -> bool:
        if number:
            chat.messages = head + whole[turns[number] :]
        try:
            await conversation.read()
        except InvalidRequest:  # too long to be tokenised; any other fault comes back at the start
            return False
        return len(conversation.prompt) <= room

    if not turns or await fits(0):
        return
    least, most = 1, len(turns) - 1
    while least < most:
        middle = (least + most) // 2
        least, most = (least, middle) if await fits(middle) else (middle + 1, most)
    if turns[least:]:
        chat.messages = head + whole[turns[least] :]

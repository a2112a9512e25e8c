"""Ensembles that end in a language model, as language models: the APIs of those can ask them.

The steps before the model make its prompt out of what the client says last. From there on it is a
request to the model itself: sampling, logprobs, usage and streaming are the model's own.
"""

import asyncio
from dataclasses import dataclass, replace

import numpy as np
import orjson

from trivet.backends.api import (
    NO_ACCOUNT,
    Account,
    ChatInput,
    CheckedRequest,
    Client,
    DataType,
    GenerateRequest,
    GenerateSink,
    Generator,
    GeneratorInfo,
    InferResponse,
    InvalidRequest,
    Messages,
    ModelServer,
    Observer,
    ServingError,
    Tensor,
    Unsupported,
)
from trivet.backends.api.delegating import DelegatingGenerator, DelegatingTokens
from trivet.ensembles.executor import EnsembleExecutor
from trivet.ensembles.graph import Edge, Graph, Step

_TEXT_INPUT, _TEXT_OUTPUT = "text_input", "text_output"
_MESSAGES = "messages"
_PROMPT = "prompt"


@dataclass(frozen=True, slots=True)
class Ending:
    """The language model at the end of an ensemble, and what comes before it."""

    step: Step
    before: Graph
    """Makes one output, the prompt."""
    question: str
    """The input that takes what the client says last."""
    takes_messages: bool
    """Whether the conversation so far is an input, too, as JSON."""

    def generator(
        self, server: ModelServer, key: int | str = "", client: Client | None = None
    ) -> Generator | None:
        """The model for a request, if it is a language model. Raises a ServingError."""
        return server.generator(self.step.model, self.step.version, key, client)


def find_ending(graph: Graph) -> Ending | None:
    """None where the ensemble does not end in one model that turns text into text, or needs more
    than a text to begin with."""
    taken = {name for step in graph.steps for name in step.needs}
    found = [step for step in graph.steps if _ends(step, taken)]
    if len(found) != 1 or found[0].settings.map:
        return None
    (step,) = found
    tensor = next(edge.tensor for edge in step.inputs if edge.name == _TEXT_INPUT)
    if tensor not in graph.makers:
        return None
    before = replace(graph, outputs={_PROMPT: Edge(_PROMPT, tensor)})
    needed = [graph.steps[number] for number in before.needed_for(())]
    if step in needed or any(each.signature.decoupled for each in needed):
        return None
    inputs = graph.signature.inputs
    texts = list(graph.signature.required_inputs - {_MESSAGES})
    if len(texts) != 1 or inputs[texts[0]].datatype is not DataType.BYTES:
        return None
    before = replace(before, signature=replace(graph.signature, decoupled=False))
    return Ending(step, before, texts[0], _MESSAGES in inputs)


def _ends(step: Step, taken: set[str]) -> bool:
    is_text = any(edge.name == _TEXT_INPUT for edge in step.inputs)
    answers = any(edge.name == _TEXT_OUTPUT for edge in step.outputs)
    return is_text and answers and not any(edge.tensor in taken for edge in step.outputs)


class GeneratingEnsemble(EnsembleExecutor, DelegatingTokens):
    """An ensemble's Executor that is a Generator, too."""

    def __init__(
        self, ending: Ending, version: int, graph: Graph, server: ModelServer, observer: Observer
    ) -> None:
        super().__init__(version, graph, server, observer)
        self._ending = ending
        self._before = EnsembleExecutor(version, ending.before, server, observer)

    async def drain(self) -> None:
        """See Executor."""
        await asyncio.gather(super().drain(), self._before.drain())

    async def close(self) -> None:
        """See Executor."""
        await asyncio.gather(super().close(), self._before.close())

    @property
    def engine(self) -> str:
        """See AsksAnother: its other steps compute, too."""
        return ""

    def for_one_request(self, key: int | str = "", client: Client | None = None) -> Generator:
        """See AsksAnother. Raises a ServingError."""
        return _OneRequest(self, self._model(key, client), key, client)

    # -- Generator -----------------------------------------------------------------------------

    @property
    def _inner(self) -> Generator:
        return self._model("", None)

    def _model(self, key: int | str, client: Client | None) -> Generator:
        model = self._ending.generator(self.server, key, client)
        if model is None:
            raise Unsupported(
                f"ensemble '{self.name}': {self._ending.step.title} does not generate text any more"
            )
        return model

    @property
    def info(self) -> GeneratorInfo:
        """See Generator."""
        return replace(self._inner.info, is_ensemble=True)

    def generate(self, request: GenerateRequest, sink: GenerateSink) -> None:
        """See Generator."""
        try:
            model = self._inner
        except ServingError as error:
            sink.fail(error)
            return
        model.generate(request, sink)

    async def compose(self, prompt: str, account: Account = NO_ACCOUNT, /) -> str:
        """See Generator."""
        return await self.composed(prompt, account, "", None)

    async def render(self, chat: ChatInput, account: Account = NO_ACCOUNT, /) -> str:
        """See Generator. The prompt is what the steps make of the last message."""
        return await self.rendered(chat, account, "", None)

    async def composed(
        self, prompt: str, account: Account, key: int | str, client: Client | None
    ) -> str:
        """See Generator, for a request of this key and client."""
        messages = [{"role": "user", "content": prompt}]
        return await self._make_prompt(messages, account, key, client)

    async def rendered(
        self, chat: ChatInput, account: Account, key: int | str, client: Client | None
    ) -> str:
        """The same for a conversation."""
        given = {
            "tools": bool(chat.tools),
            "add_generation_prompt": not chat.add_generation_prompt,
            "continue_final_message": chat.continue_final_message,
            "chat_template_kwargs": bool(chat.arguments),
        }
        if asked := [name for name, is_given in given.items() if is_given]:
            raise Unsupported(
                f"{asked[0]}: ensemble '{self.name}' writes the prompt itself, without a chat "
                f"template; ask model '{self._ending.step.model}' for that"
            )
        if images := chat.images:
            raise Unsupported(
                f"{images[0].where}: ensemble '{self.name}' takes texts alone; ask model "
                f"'{self._ending.step.model}' about images"
            )
        messages = chat.messages
        if not messages or messages[-1].get("role") != "user":
            raise InvalidRequest(
                f"messages: the last one must be the user's: ensemble '{self.name}' answers it"
            )
        return await self._make_prompt(messages, account, key, client)

    async def _make_prompt(
        self, messages: Messages, account: Account, key: int | str, client: Client | None
    ) -> str:
        texts = {self._ending.question: str(messages[-1].get("content") or "")}
        if self._ending.takes_messages:
            texts[_MESSAGES] = orjson.dumps(list(messages)).decode()
        signature = self.graph.signature
        inputs = {
            name: _text(name, text, len(signature.full_dims(signature.inputs[name])))
            for name, text in texts.items()
        }
        request = CheckedRequest(
            self.name,
            self.version,
            "" if isinstance(key, int) else key,
            inputs,
            sequence_id=key if isinstance(key, int) else 0,
            tenant=account.tenant,
            on_tokens=account.on_tokens,
            client=client,
        )
        answer = _Answer()
        self._before.submit(request, answer)
        try:
            return await answer.text
        except asyncio.CancelledError:
            request.cancel.cancel()
            raise


class _OneRequest(DelegatingGenerator):
    """The ensemble over one version of its language model: what that version's tokens are, it is
    asked to go on with."""

    def __init__(
        self,
        ensemble: GeneratingEnsemble,
        model: Generator,
        key: int | str,
        client: Client | None,
    ) -> None:
        super().__init__(model)
        self._ensemble = ensemble
        self._key = key
        self._client = client

    @property
    def info(self) -> GeneratorInfo:
        """See Generator."""
        return replace(self._inner.info, is_ensemble=True)

    async def compose(self, prompt: str, account: Account = NO_ACCOUNT, /) -> str:
        """See Generator."""
        return await self._ensemble.composed(prompt, account, self._key, self._client)

    async def render(self, chat: ChatInput, account: Account = NO_ACCOUNT, /) -> str:
        """See Generator."""
        return await self._ensemble.rendered(chat, account, self._key, self._client)


class _Answer:
    """The sink of one prompt."""

    def __init__(self) -> None:
        self.text: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def send(self, response: InferResponse, *, final: bool) -> None:  # noqa: ARG002
        if self.text.done():
            return
        if not response.outputs:
            self.fail(InvalidRequest("the ensemble returned before it asked its language model"))
            return
        first = response.outputs[0].numpy().ravel()[0]
        self.text.set_result(first if isinstance(first, str) else bytes(first).decode())

    def finish(self) -> None:
        self.fail(InvalidRequest("the ensemble made no prompt for its language model"))

    def fail(self, error: ServingError) -> None:
        if not self.text.done():
            self.text.set_exception(error)


def _text(name: str, text: str, num_dims: int) -> Tensor:
    value = np.array([text.encode()], dtype=np.object_).reshape((1,) * num_dims)
    return Tensor.of(name, value)

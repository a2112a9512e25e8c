"""The server's side of a prompt: it holds nothing but texts, and asks the base for everything."""

import asyncio

from trivet.backends.api import (
    NO_ACCOUNT,
    Account,
    ChatInput,
    CheckedRequest,
    Client,
    GenerateRequest,
    GenerateSink,
    Generator,
    GeneratorInfo,
    ModelNotReady,
    ModelServer,
    Observer,
    ServingError,
    Sink,
    Unavailable,
    Unsupported,
)
from trivet.backends.api.delegating import DelegatingTokens
from trivet.backends.generating.tensor_form import answer_tensors
from trivet.backends.prompt.counting import Counting
from trivet.backends.prompt.generator import PromptGenerator
from trivet.backends.prompt.prompt_file import NOTHING_GIVEN, Values
from trivet.backends.prompt.templates import PromptTemplates
from trivet.backends.prompt.tensors import parse_with, variables_in

_STOPPING = "the model is being unloaded"


class PromptExecutor(DelegatingTokens):
    """An Executor and a Generator over another model. Owned by the event loop."""

    def __init__(
        self,
        name: str,
        version: int,
        templates: PromptTemplates,
        server: ModelServer,
        observer: Observer,
    ) -> None:
        self._name = name
        self._version = version
        self._templates = templates
        self._server = server
        self._counting = Counting(observer)
        self._is_stopping = False
        self._tasks: dict[asyncio.Task[None], Sink] = {}
        """Of requests as tensors, until their base is asked."""

    @property
    def engine(self) -> str:
        """See AsksAnother."""
        return self._templates.file.base

    def for_one_request(
        self, key: int | str = "", client: Client | None = None, given: Values = NOTHING_GIVEN
    ) -> PromptGenerator:
        """See AsksAnother. Raises a ServingError."""
        if self._is_stopping:
            raise ModelNotReady(f"model '{self._name}': {_STOPPING}")
        file = self._templates.file
        base = self._server.generator(file.base, file.base_version, key, client)
        if base is None:
            raise Unsupported(
                f"prompt '{self._name}': its base '{file.base}' does not generate text any more"
            )
        return PromptGenerator(self._name, self._templates, base, self._counting, given)

    # -- Executor ------------------------------------------------------------------------------

    def submit(self, request: CheckedRequest, sink: Sink) -> None:
        """See Executor."""
        task = asyncio.get_running_loop().create_task(self._submit(request, sink))
        self._tasks[task] = sink
        task.add_done_callback(self._tasks.pop)

    async def _submit(self, request: CheckedRequest, sink: Sink) -> None:
        file = self._templates.file
        try:
            key = request.sequence_id or request.id
            given = variables_in(request, file)
            generator = self.for_one_request(key, request.client, given)
            parsed = parse_with(request, file)
        except ServingError as error:
            sink.fail(error)
            return
        await answer_tensors(generator, request, parsed, self._version, sink)

    async def drain(self) -> None:
        """See Executor."""
        self._is_stopping = True
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._counting.wait_until_empty()

    async def close(self) -> None:
        """See Executor."""
        self._is_stopping = True
        error = Unavailable(f"model '{self._name}': {_STOPPING}")
        for task, sink in list(self._tasks.items()):
            # One that is done has handed its sink on, or has ended it.
            if task.cancel():
                sink.fail(error)
        self._counting.end_all(error)

    def is_ready(self) -> bool:
        """See Executor."""
        file = self._templates.file
        return not self._is_stopping and self._server.is_ready(file.base, file.base_version)

    # -- Generator -----------------------------------------------------------------------------

    @property
    def _inner(self) -> Generator:
        return self.for_one_request()

    @property
    def info(self) -> GeneratorInfo:
        """See Generator."""
        return self.for_one_request().info

    def generate(self, request: GenerateRequest, sink: GenerateSink) -> None:
        """See Generator."""
        try:
            generator = self.for_one_request()
        except ServingError as error:
            sink.fail(error)
            return
        generator.generate(request, sink)

    async def render(self, chat: ChatInput, account: Account = NO_ACCOUNT, /) -> str:
        """See Generator."""
        return await self.for_one_request().render(chat, account)

    async def compose(self, prompt: str, account: Account = NO_ACCOUNT, /) -> str:
        """See Generator."""
        return await self.for_one_request().compose(prompt, account)

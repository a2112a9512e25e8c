"""One TritonPythonModel object: batches become its requests, its responses the batch's outputs."""

import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from trivet.backends.api import (
    Asker,
    BackendFailed,
    Batch,
    CheckedRequest,
    LoadFailed,
    ModelFiles,
    Placement,
    ResponseSender,
    ServingError,
    UnreadableFiles,
    storage_fault_below,
)
from trivet.backends.api.config import to_json_dict
from trivet.backends.api.meters import Meters
from trivet.backends.api.supplied import instance_config
from trivet.backends.python.answers import (
    ModelOutputs,
    answer,
    answer_sent,
    late_sender,
    open_sender,
    responses_of,
)
from trivet.backends.python.late import LateResponse
from trivet.backends.python.loader import load_model_class
from trivet.backends.python.model_api.errors import TritonModelException
from trivet.backends.python.model_api.metrics import THREADS_METERS, keeping
from trivet.backends.python.model_api.nested import CALLING, THREADS, Calling
from trivet.backends.python.model_api.request import ReceivedRequest
from trivet.backends.python.model_api.sender import InferenceResponseSender
from trivet.protos.model_config_pb2 import ModelConfig

if TYPE_CHECKING:
    from concurrent.futures import Future

    from trivet.backends.python.coroutines import CoroutineRunner

log = logging.getLogger(__name__)


class PythonInstance:
    """User code's model object, in the process that this runs in."""

    def __init__(
        self, model: Any, config: ModelConfig, name: str, meters: Meters | None = None
    ) -> None:
        """`name`: the instance's."""
        self._model = model
        self._instance_name = name
        self._meters = meters
        self._name = config.name
        self._is_decoupled = config.model_transaction_policy.decoupled
        self._is_iterative = config.sequence_batching.iterative_sequence
        self._outputs = ModelOutputs(
            config.name, [output.name for output in instance_config(config).output]
        )
        self._runner: CoroutineRunner | None = None
        self._asker: Asker | None = None
        self._is_hook_failing = False

    @classmethod
    def open(
        cls,
        path: Path,
        config: ModelConfig,
        files: ModelFiles,
        placement: Placement,
        meters: Meters | None = None,
    ) -> "PythonInstance":
        """Imports the file, makes the object and calls its `initialize`. Raises LoadFailed. Owns
        `meters`, where the model's metrics are kept, once it is open."""
        try:
            with keeping(meters):
                model = load_model_class(path, config.name)()
                if hasattr(model, "initialize"):
                    model.initialize(_initialize_arguments(config, files, placement))
        except LoadFailed:
            raise
        except Exception as error:
            reason = str(error) if isinstance(error, TritonModelException) else repr(error)
            text = f"model '{config.name}' failed to initialize: {reason}"
            if storage_fault_below(files.model_dir, error):
                raise UnreadableFiles(text) from None
            log.exception("model '%s' failed to initialize", config.name)
            raise LoadFailed(text) from None
        return cls(model, config, placement.name, meters)

    def ask_through(self, asker: Asker) -> None:
        """See AsksFromThreads."""
        self._asker = asker
        if asker.owns_process:
            THREADS.calling = Calling(self._name, asker, ())
            THREADS_METERS.meters = self._meters

    def execute(self, batch: Batch) -> None:
        """Has user code answer the batch; see `Instance.execute`."""
        if self._is_decoupled:
            self._execute_decoupled(batch)
        else:
            self._execute_plain(batch)

    def is_ready(self) -> bool:
        """What the model's own `is_ready` says; one that raises is not ready."""
        hook = getattr(self._model, "is_ready", None)
        if hook is None:
            return True
        try:
            is_ready = bool(hook())
        except Exception:
            if not self._is_hook_failing:
                log.exception("is_ready() of model '%s' failed", self._name)
            self._is_hook_failing = True
            return False
        self._is_hook_failing = False
        return is_ready

    def close(self) -> None:
        """Calls `finalize`."""
        if self._asker is not None and self._asker.owns_process:
            THREADS.calling = None
            THREADS_METERS.meters = None
        self._asker = None
        if hasattr(self._model, "finalize"):
            try:
                with keeping(self._meters):
                    self._model.finalize()
            except Exception:
                log.exception("finalize() of model '%s' failed", self._name)
        if self._meters is not None:
            self._meters.release()
        if self._runner is not None:
            self._runner.close()

    def _execute_plain(self, batch: Batch) -> None:
        late: dict[int, LateResponse] = {}
        requests = [
            self._received(request, partial(late_sender, request, late, index))
            for index, request in enumerate(batch.requests)
        ]
        batch.mark_gathered()
        try:
            with self._calling(batch):
                returned = self._call(requests)
        except Exception as error:
            if not any(each.response for each in late.values()):
                raise
            answer_sent(batch, late, self._failure(error), self._outputs)
            return
        _note_rescheduled(batch, requests)
        # A sender that user code has dropped must go with its request, or waiting would not end.
        del requests
        responses = responses_of(returned, late, batch, self._name)
        batch.mark_computed()
        for index, response in responses.items():
            answer(batch, index, response, self._outputs)

    def _execute_decoupled(self, batch: Batch) -> None:
        requests = [
            self._received(request, partial(open_sender, request, sender, self._outputs))
            for request, sender in zip(batch.requests, batch.senders, strict=True)
        ]
        batch.mark_gathered()
        with self._calling(batch):
            returned = self._call(requests, batch.senders)
        if returned is not None:
            raise BackendFailed(
                f"Python model '{self._instance_name}' is using the decoupled mode and the execute "
                "function must return None."
            )
        _note_rescheduled(batch, requests)

    @contextmanager
    def _calling(self, batch: Batch) -> Iterator[None]:
        """Lets user code make metrics and ask other models on behalf of the batch."""
        with keeping(self._meters):
            if self._asker is None:
                yield
                return
            token = CALLING.set(Calling(batch.requests[0].model_name, self._asker, batch.requests))
            try:
                yield
            finally:
                CALLING.reset(token)

    def _received(
        self, request: CheckedRequest, make_sender: Callable[[], InferenceResponseSender]
    ) -> ReceivedRequest:
        names, is_iterative = self._outputs.names, self._is_iterative
        return ReceivedRequest(request, names, make_sender, is_iterative=is_iterative)

    def _call(
        self, requests: list[ReceivedRequest], senders: Sequence[ResponseSender] = ()
    ) -> object:
        """Calls `execute`. A decoupled coroutine goes on by itself, any other is waited for."""
        try:
            returned = self._model.execute(requests)
            if not inspect.iscoroutine(returned):
                return returned
            running = self._coroutines().start(returned)
            if not self._is_decoupled:
                return running.result()
        except TritonModelException as error:
            raise BackendFailed(str(error)) from error
        running.add_done_callback(partial(self._end_failed, senders))
        return None

    def _coroutines(self) -> "CoroutineRunner":
        if self._runner is None:
            # Imports asyncio, which few models need and which takes a while.
            from trivet.backends.python.coroutines import CoroutineRunner

            self._runner = CoroutineRunner()
        return self._runner

    def _end_failed(self, senders: Sequence[ResponseSender], running: "Future[object]") -> None:
        """The door of a coroutine that nobody waits for."""
        error = None if running.cancelled() else running.exception()
        if error is not None:
            failure = self._failure(error)
            for sender in senders:
                sender.fail(failure)

    def _failure(self, error: BaseException) -> ServingError:
        """What clients are told of an exception of `execute`."""
        if isinstance(error, ServingError):
            return error
        if isinstance(error, TritonModelException):
            return BackendFailed(str(error))
        log.error("execute() of model '%s' failed", self._name, exc_info=error)
        return BackendFailed(
            f"model '{self._name}' failed while executing; the server log has the details"
        )


def _note_rescheduled(batch: Batch, requests: Sequence[ReceivedRequest]) -> None:
    for index, request in enumerate(requests):
        if request.is_rescheduled:
            batch.reschedule(index)


def _initialize_arguments(
    config: ModelConfig, files: ModelFiles, placement: Placement
) -> dict[str, str]:
    return {
        "model_config": orjson.dumps(to_json_dict(config)).decode(),
        "model_instance_kind": placement.kind.removeprefix("KIND_"),
        "model_instance_name": placement.name,
        "model_instance_device_id": str(placement.device_id),
        "model_repository": str(files.model_dir),
        "model_version": str(files.version),
        "model_name": config.name,
    }

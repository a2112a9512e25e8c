"""The program of an instance process: receives batches, computes, replies.

The main thread loads the model and computes, as user code may expect. A second thread listens for
what may come in between, cancellations and freed memory; a third says that the process runs.
Imports the contract and, by its word, the one backend asked for.
"""

import gc
import logging
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from trivet.backends.api import (
    AsksFromThreads,
    Backend,
    BackendFailed,
    CheckedRequest,
    DeviceLost,
    Instance,
    LoadFailed,
    ServingError,
    Tensor,
    UnreadableFiles,
    judged,
    storage_fault,
)
from trivet.backends.api.meters import MakesMeters
from trivet.backends.process.asking import RemoteAsker
from trivet.backends.process.bond import die_with_parent
from trivet.backends.process.channel import Channel, ChannelClosed, Header
from trivet.backends.process.link import Link, Message
from trivet.backends.process.metering import RemoteMeters
from trivet.backends.process.pulse import BEAT_S
from trivet.backends.process.regions import RegionReader, RegionWriter
from trivet.backends.process.remote import LogForwarder, OpenRequests, RemoteSender
from trivet.backends.process.task import Task, encode_config
from trivet.backends.process.wire import ReceivedBatch, decode_batch, encode_error, encode_result
from trivet.backends.registry import open_backend

log = logging.getLogger(__name__)

_READINESS_PERIOD_S = 0.5
_UNSENDABLE = "the model's answer cannot be sent to the server; the server log has the details"
LOST_EXIT_CODE = 70
"""Of a process whose device has faulted."""
_FAULT = "AcceleratorError"
"""PyTorch's error for a fault of a GPU; a lack of memory is another one."""


def main(network: str = "") -> None:
    """Serves the parent over two inherited sockets until it hangs up.

    Arguments of the program: the descriptor for batches, the one for everything else, the parent's
    process id. `network`: what went wrong when the network was to be taken away.
    """
    calls_fd, events_fd, parent_pid = map(int, sys.argv[1:])
    sys.argv = [__file__]
    die_with_parent(parent_pid)
    writer, reader = RegionWriter(), RegionReader()
    calls = Link(Channel(socket.socket(fileno=calls_fd)), writer, reader)
    events = Link(Channel(socket.socket(fileno=events_fd)), writer, reader)
    try:
        _Server(calls, events, network).run()
    except ChannelClosed:
        # The parent is gone or has given this process up: nobody is left to tell.
        sys.exit(1)


class _Reply(NamedTuple):
    """What a batch is answered with."""

    header: Header
    runs: list[list[Tensor]]
    is_lost: bool
    """Whether a device has faulted so that this process is of no more use."""


class _Server:
    """One instance and the links to its parent. `run` is the main thread's."""

    def __init__(self, calls: Link, events: Link, network: str) -> None:
        self._network = network
        self._calls = calls
        self._events = events
        self._requests = OpenRequests()
        self._asker = RemoteAsker(events)
        self._meters = RemoteMeters(events)
        self._instance: Instance | None = None
        """Once it is open."""

    def run(self) -> None:
        task = Task.from_header(self._calls.receive().header)
        logging.basicConfig(level=task.log_level, handlers=[LogForwarder(self._events)])
        if self._network:
            log.warning("model '%s': the network was %s", task.config.name, self._network)
        if task.placement is not None:
            # Before user code, whose metrics wait for the server's word.
            threading.Thread(target=self._listen, name="events", daemon=True).start()
        instance = self._instance = self._start(task)
        if instance is None:
            return
        threading.Thread(target=self._beat, name="beat", daemon=True).start()
        while self._answer(instance):
            pass
        instance.close()

    def _start(self, task: Task) -> Instance | None:
        """The door of loading: whatever user code raises becomes a reason that is shown."""
        try:
            backend = _find_backend(task)
            if isinstance(backend, MakesMeters) and task.placement is not None:
                backend = backend.metered(self._meters)
            if task.placement is None:
                config = backend.complete(task.config, task.files)
                self._events.send({"op": "completed", "config": encode_config(config)})
                return None
            instance = backend.open(task.config, task.files, task.placement)
        except ServingError as error:
            self._events.send({"op": "failed", **encode_error(judged(error))})
            return None
        except Exception as error:
            failed = _failed(error)
            if not isinstance(failed, UnreadableFiles):
                log.exception("loading %s failed", task.name)
            self._events.send({"op": "failed", **encode_error(failed)})
            return None
        if isinstance(instance, AsksFromThreads):
            instance.ask_through(self._asker)
        # What was loaded stays: a full collection of it takes as long as many batches.
        gc.collect()
        gc.freeze()
        self._events.send({"op": "opened", "ready": instance.is_ready()})
        return instance

    def _answer(self, instance: Instance) -> bool:
        """Computes the next batch; False when there is none any more.

        Keeps nothing of the batch once it has returned, so that its memory goes back.
        """
        message = self._calls.receive()
        if message.header["op"] == "close":
            return False
        reply = self._compute(instance, message)
        del message
        self._send(reply)
        if reply.is_lost:
            # Nothing can be computed here any more, and closing might wait for ever: the parent
            # starts another process.
            os._exit(LOST_EXIT_CODE)
        return True

    def _send(self, reply: _Reply) -> None:
        """The door of replies: one that cannot be sent is the batch's error, not this process's."""
        try:
            self._calls.send(reply.header, reply.runs)
        except ChannelClosed:
            raise
        except Exception:
            log.exception("a reply cannot be sent")
            self._calls.send(encode_error(BackendFailed(_UNSENDABLE)))

    def _compute(self, instance: Instance, message: Message) -> _Reply:
        batch = decode_batch(message, self._requests.register, self._sender)
        error = _execute(instance, batch)
        if batch.senders:
            if error is not None:
                for sender in batch.senders:
                    sender.fail(error)
            again = sorted(batch.rescheduled)
            for sender in (batch.senders[index] for index in again):
                assert isinstance(sender, RemoteSender)
                sender.release()
            done: Header = {"op": "done", "results": [], "times": [0, 0, 0], "rescheduled": again}
            return _Reply(done, [], isinstance(error, DeviceLost))
        for index in range(len(batch.requests)):
            self._requests.forget(message.header["token"] + index)
        if error is not None:
            return _Reply(encode_error(error), [], isinstance(error, DeviceLost))
        return _Reply(*encode_result(batch), is_lost=False)

    def _sender(self, token: int, request: CheckedRequest) -> RemoteSender:
        return RemoteSender(self._events, self._requests, token, request)

    def _beat(self) -> None:
        """The third thread: says that the process runs. One that holds the GIL for ever, or is
        stopped, does not."""
        with suppress(ChannelClosed):
            while True:
                time.sleep(BEAT_S)
                self._events.channel.try_send({"op": "beat"})
                with suppress(ServingError):  # the server is gone
                    self._meters.flush()

    def _listen(self) -> None:
        """The second thread: what the parent says while the main thread computes."""
        self._meters.listener = threading.get_ident()
        self._events.channel.set_read_timeout(_READINESS_PERIOD_S)
        was_ready: bool | None = None
        while True:
            try:
                message = self._events.receive()
                header = message.header
                if header["op"] == "cancel":
                    self._requests.cancel(header["token"])
                elif header["op"] == "room":
                    self._requests.give_room(header["token"], is_open=header["open"])
                elif header["op"] == "metered":
                    self._meters.handle(header)
                else:
                    self._asker.handle(message)
                del message
            except BlockingIOError:
                instance = self._instance
                if instance is not None and (is_ready := instance.is_ready()) != was_ready:
                    self._events.send({"op": "ready", "ready": is_ready})
                    was_ready = is_ready
            except ChannelClosed:
                # The main thread may be deep in user code: end the process under it.
                os._exit(1)


def _failed(error: Exception) -> LoadFailed:
    """Why loading failed. The system's own text would tell where the repository lies."""
    fault = storage_fault(error)
    if fault:
        return UnreadableFiles(f"the model's files cannot be read: {fault}")
    return LoadFailed(f"{type(error).__name__}: {error}")


def _execute(instance: Instance, batch: ReceivedBatch) -> ServingError | None:
    """The instance's door: whatever it raises becomes the batch's error."""
    try:
        instance.execute(batch)
    except ServingError as error:
        return error
    except Exception as error:
        name = batch.requests[0].model_name
        ids = [request.id or "-" for request in batch.requests]
        log.exception("model '%s' failed; requests %s", name, ids)
        if any(kind.__name__ == _FAULT for kind in type(error).__mro__):
            return DeviceLost(
                f"model '{name}' met a fault of its GPU; its process is started again. The server "
                "log has the details"
            )
        return BackendFailed(
            f"model '{name}' failed while executing; the server log has the details"
        )
    return None


def _find_backend(task: Task) -> Backend:
    """The backend, with the modules that it and the model offer to user code on the path."""
    backend = open_backend(task.backend)
    module_file = sys.modules[type(backend).__module__].__file__ or ""
    folders = [task.files.version_dir, task.files.model_dir, Path(module_file).parent / "shim"]
    sys.path += [str(folder) for folder in folders if folder.is_dir()]
    return backend

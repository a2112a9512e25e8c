"""Why a request or a load did not succeed. Protocol numbers live in the front rooms' tables.

ServingError
├── InvalidRequest        the request contradicts the model or the protocol
│   ├── ModelNotFound     no model of that name in any repository
│   ├── TooLarge          over a size limit of the server; the text names the flag
│   └── AlreadyExists     a shared memory region of that name is registered
├── NotFound              a version, region or other part that is not there
├── Unavailable           right request, wrong moment: try again later
│   ├── ModelNotReady     known, but not loaded (any more)
│   ├── QueueFull         the model's queue has reached its limit
│   ├── QueueTimeout      waited longer than its queue policy allows
│   └── InstanceDied      the process that computed it is gone; it is being restarted
├── DeadlineExceeded      the client's deadline passed
├── Cancelled             the client went away or cancelled
├── Unsupported           a feature this model or server does not offer
├── BackendFailed         the model failed while computing
├── ResponseTooLarge      the model's answer is over a size limit of the server
└── LoadFailed            a model could not be loaded
    ├── UnreadableFiles   its files are there, but the disk does not give them out now
    └── InvalidConfig     a model configuration is wrong; the text gives file and line

The text of a ServingError is written for the client and is sent to it as it is. Text of foreign
exceptions (a framework's, user code's) goes to the log; only errors that a model raises on purpose
for its caller are wrapped with their own words.
"""

MAX_MESSAGE_CHARACTERS = 64 << 10
"""More of an error's text goes nowhere: it has to pass process borders and a response's head."""


class ServingError(Exception):
    """Base of all errors whose text may be shown to a client.

    Texts repeat what clients and models wrote. So that each can be sent, characters that UTF-8 does
    not have (half a surrogate pair) are shown by their escapes."""

    def __init__(self, message: str) -> None:
        self.message = sendable(message)
        super().__init__(self.message)


class InvalidRequest(ServingError):
    """The request contradicts the model or the protocol."""


class ModelNotFound(InvalidRequest):
    """No model of that name is in any repository."""


class TooLarge(InvalidRequest):
    """The request is over a size limit; the text names the flag that raises it."""


class AlreadyExists(InvalidRequest):
    """A shared memory region of that name is registered already."""


class NotFound(ServingError):
    """A version, a region or another named part does not exist."""


class Unavailable(ServingError):
    """A right request at the wrong moment; the same request may succeed later."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        """`retry_after_s`: when it may succeed, as far as is known."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeviceFull(Unavailable):
    """One batch did not fit into a device's memory beside what else runs now: worth another try."""


class ModelNotReady(Unavailable):
    """The model is known but no version of it serves now."""


class QueueFull(Unavailable):
    """The model's queue has reached its limit."""


class QueueTimeout(Unavailable):
    """The request waited longer than its queue policy allows."""


class InstanceDied(Unavailable):
    """The process that computed the request is gone and is being restarted."""


class DeadlineExceeded(ServingError):
    """The client's deadline passed before the answer."""


class Cancelled(ServingError):
    """The client cancelled or went away."""


class Unsupported(ServingError):
    """A feature that this model or this server does not offer."""


class BackendFailed(ServingError):
    """The model failed while computing."""


class ResponseTooLarge(ServingError):
    """What the model answered is over a size limit; the text names the flag that raises it."""


class DeviceLost(BackendFailed):
    """A device has faulted so that this process can use it no more."""


class LoadFailed(ServingError):
    """A model could not be loaded; the text says why."""


class UnreadableFiles(LoadFailed):
    """The disk does not give out a model's files now; the same files may load later."""


class InvalidConfig(LoadFailed):
    """A model configuration is wrong; the text gives file, line and the fix."""


def sendable(text: str) -> str:
    """The text with escapes for what UTF-8 does not have, and no longer than an error may be."""
    if len(text) > MAX_MESSAGE_CHARACTERS:
        text = text[:MAX_MESSAGE_CHARACTERS] + "…"
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()

"""Everything that crosses the border between server and engine process, as msgpack frames.

A frame is a uint32 length, little-endian, and a msgpack list whose first item is its kind. Neither
side runs what the other sends: there are numbers, texts and lists, nothing else.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

import msgpack

from trivet.backends.api import ComputedStep, Grammar, Sampling

MAX_FRAME_BYTES = 256 * 1024 * 1024
_LENGTH = struct.Struct("<I")
_FILE, _BYTES = struct.Struct(">BI"), 0xC6
"""What msgpack has before bytes: `bin 32` and their number."""
TopLogprobs = tuple[int, float, int, list[int], list[float]]
"""Token, its log probability, its rank (1: none is likelier), the likeliest tokens and theirs."""


class SubmittedImage(NamedTuple):
    """An image of a prompt, in the order in which they stand there."""

    digest: bytes
    """Of the file."""
    num_tokens: int
    """Of the prompt, that are its own."""
    where: str
    """In the request, for errors."""
    file: bytes
    """The last: it is sent as it lies."""


@dataclass(frozen=True, slots=True)
class Submit:
    """Go on with a prompt."""

    id: str
    prompt_ids: list[int]
    sampling: Sampling
    seed: int
    bad_word_ids: list[list[int]]
    end_ids: list[int]
    """Tokens that end the output, end-of-text first; without `ignore_eos` ones."""
    priority: int = 0
    cache_salt: str = ""
    thought_marks: list[list[int]] = field(default_factory=list)
    """Before and behind thoughts, where these are limited."""
    adapter: str = ""
    """The key of one that was loaded; empty: the base alone."""
    images: list[SubmittedImage] = field(default_factory=list)
    """The last, for their files."""


@dataclass(frozen=True, slots=True)
class ResetPrefixCache:
    """Forget what prompts begin with."""

    is_anew: bool
    """Whether what runs is to be computed anew, too."""


@dataclass(frozen=True, slots=True)
class Abort:
    """Nobody waits for these any more."""

    ids: list[str]


@dataclass(frozen=True, slots=True)
class LoadAdapter:
    """Requests may ask for an adapter; answered by AdapterRead."""

    key: str
    """Of this load: what is read again later under another name shares nothing with it."""
    name: str
    """In error texts."""
    folder: str


@dataclass(frozen=True, slots=True)
class UnloadAdapter:
    """No further request asks for it. Those that use it end as they would have."""

    key: str


@dataclass(frozen=True, slots=True)
class AdapterRead:
    """What came of a LoadAdapter."""

    key: str
    error: str = ""
    """Why it cannot be computed; empty: it can."""
    is_unreadable: bool = False
    """Whether the disk does not give out its files now."""
    vocabulary_size: int = 0


class Output(NamedTuple):
    """What a step gave one request; a tuple, since hundreds are made and sent a step."""

    id: str
    token_ids: list[int]
    finish: str = ""
    """"stop" (the last token is one of `end_ids`), "length", "error" with `error`."""
    error: str = ""
    error_kind: str = ""
    """The name of a ServingError's class; empty: BackendFailed."""
    logprobs: list[TopLogprobs] | None = None
    prompt_logprobs: list[TopLogprobs] | None = None
    num_cached: int = 0
    queue_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Outputs:
    """A step's outputs, at most one of each request, and the engine's state after it."""

    outputs: list[Output]
    stats: dict[str, float]
    tokens: list[tuple[str, int]] = field(default_factory=list)
    """Of the requests that have got one token and nothing else, most of most steps: a pair takes a
    fifth of the time that an output does."""

    steps: list[ComputedStep] = field(default_factory=list)
    """Those since the last message."""
    preempted: list[str] = field(default_factory=list)
    """Requests that were set back since then."""

    def each(self) -> Iterator[Output]:
        """All of them."""
        yield from self.outputs
        for request_id, token in self.tokens:
            yield Output(request_id, [token])


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The engine's process lives; `step_s` is how long the present step has taken, 0: none."""

    step_s: float
    stats: dict[str, float]


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded."""

    info: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failed:
    """The model cannot be loaded."""

    text: str
    is_unreadable: bool = False
    """Whether the disk does not give out its files now."""


@dataclass(frozen=True, slots=True)
class Logged:
    """A line for the server's log, which says how lines look."""

    level: int
    logger: str
    text: str
    trace: str = ""
    """A traceback, in lines."""
    pid: int = 0
    """Of the process that says so."""
    printed_by: str = ""
    """Whose raw output the line is, if it is that: the engine's own, or a rank's."""


@dataclass(frozen=True, slots=True)
class Quit:
    """Stop."""


Message = (
    Submit | Abort | Outputs | Heartbeat | Ready | Failed | Logged | Quit | ResetPrefixCache
    | LoadAdapter | UnloadAdapter | AdapterRead
)  # fmt: skip
_KINDS: tuple[type, ...] = (
    Submit, Abort, Outputs, Heartbeat, Ready, Failed, Logged, Quit, ResetPrefixCache,
    LoadAdapter, UnloadAdapter, AdapterRead,
)  # fmt: skip
_NUMBERS = {kind: index for index, kind in enumerate(_KINDS)}
_FIELDS = {kind: tuple(f.name for f in fields(kind)) for kind in _KINDS}
_IMAGES = _FIELDS[Submit].index("images")


def pack(message: Message) -> bytes:
    """A message as a frame."""
    kind = type(message)
    values = [_encode(getattr(message, name)) for name in _FIELDS[kind]]
    body: bytes = msgpack.packb([_NUMBERS[kind], *values])
    return _LENGTH.pack(len(body)) + body


def pack_in_parts(message: Submit) -> list[bytes]:
    """A frame in parts, of which files are not copied: one may take as long as a step."""
    if not message.images:
        return [pack(message)]
    packer, names = msgpack.Packer(autoreset=False), _FIELDS[Submit]
    packer.pack_array_header(1 + len(names))
    packer.pack(_NUMBERS[Submit])
    for name in names[:-1]:
        packer.pack(_encode(getattr(message, name)))
    packer.pack_array_header(len(message.images))
    parts = []
    for image in message.images:
        packer.pack_array_header(len(image))
        for value in image[:-1]:
            packer.pack(value)
        parts += [packer.bytes() + _FILE.pack(_BYTES, len(image.file)), image.file]
        packer.reset()
    return [_LENGTH.pack(sum(map(len, parts))), *parts]


def _encode(value: Any) -> Any:
    return asdict(value) if isinstance(value, Sampling) else value


def unpack(body: bytes | memoryview) -> Message:
    """The message of a frame's body. Raises ValueError for what is none."""
    try:
        number, *values = msgpack.unpackb(body, strict_map_key=False)
        kind = _KINDS[number]
        if kind is Submit:
            values[2] = _sampling(values[2])
            values[_IMAGES] = [SubmittedImage(*each) for each in values[_IMAGES]]
        elif kind is Outputs:
            values[0] = [Output(*each) for each in values[0]]
            values[3] = [ComputedStep(*each) for each in values[3]]
        message: Message = kind(*values)
    except (TypeError, LookupError, AttributeError, msgpack.UnpackException) as error:
        raise ValueError("a frame that is no message") from error
    return message


_TUPLES = ("stop", "stop_token_ids", "allowed_token_ids", "bad_words", "logprob_token_ids")


def _sampling(values: Mapping[str, Any]) -> Sampling:
    changed = dict(values)
    for name in _TUPLES:
        changed[name] = tuple(changed[name])
    if changed["grammar"] is not None:
        changed["grammar"] = Grammar(**changed["grammar"])
    return Sampling(**changed)


class FrameReader:
    """Puts frames together from pieces of a stream."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes | memoryview) -> Iterator[Message]:
        """The messages that are complete with `data`. Raises ValueError for nonsense."""
        self._data += data
        while len(self._data) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._data)
            if size > MAX_FRAME_BYTES:
                raise ValueError(f"a frame of {size} bytes; at most {MAX_FRAME_BYTES} are sent")
            end = _LENGTH.size + size
            if len(self._data) < end:
                return
            body = bytes(self._data[_LENGTH.size : end])
            del self._data[:end]
            yield unpack(body)

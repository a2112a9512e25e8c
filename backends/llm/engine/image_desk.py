"""Images of requests that are not let in yet: made pixels beside the engine's loop, looked at
between its steps, a few tiles at a time."""

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from trivet.backends.api import BackendFailed, InvalidRequest, QueueFull, ServingError
from trivet.backends.llm.engine.embeddings import Embeddings, HeldImage, Key
from trivet.backends.llm.foreign.plan import Pixels, Sight
from trivet.backends.llm.messages import Submit, SubmittedImage

log = logging.getLogger(__name__)
MAX_WAITING_BYTES = 1 << 30
"""Of files that nobody has made pixels of."""
MAX_PREPARED = 2
"""Images that are pixels, or are becoming it: they take some hundred times what their files do."""
_UNPREPARED = "an image could not be made the model's input; the server log has the details"


@dataclass(frozen=True, slots=True)
class Prepared:
    """What came of an image's file."""

    image: HeldImage
    pixels: "Future[Pixels]"


@dataclass(frozen=True, slots=True)
class Seen:
    """A request whose images have been looked at, or why they cannot be."""

    submit: Submit
    error: ServingError | None = None


@dataclass(slots=True, eq=False)
class _Looking:
    """An image that is being looked at."""

    image: HeldImage
    pixels: Pixels
    parts: list[Tensor] = field(default_factory=list)
    num_rows: int = 0


@dataclass(slots=True, eq=False)
class _Open:
    """A request that has its images leased."""

    submit: Submit
    images: list[HeldImage]
    is_seen: bool = False


class ImageDesk:
    """Owned by the engine's thread."""

    def __init__(self, sight: Sight, embeddings: Embeddings) -> None:
        self._sight = sight
        self._embeddings = embeddings
        self._done: Callable[[Prepared], None]
        """Given once there is somebody to call."""
        self._thread = ThreadPoolExecutor(1, "images")
        self._waiting: deque[Submit] = deque()
        """For room, in order."""
        self._open: dict[str, _Open] = {}
        self._files: deque[tuple[HeldImage, bytes]] = deque()
        """That nobody has made pixels of."""
        self._num_prepared = 0
        self._looking: deque[_Looking] = deque()
        self._seen: list[Seen] = []

    def open(self, done: Callable[[Prepared], None]) -> None:
        """`done` is called in another thread; what it is given goes to `came`."""
        self._done = done

    def close(self) -> None:
        """Nobody waits any more."""
        self._files.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)

    @property
    def has_work(self) -> bool:
        """Whether `step` has something to do."""
        return bool(self._looking or self._seen)

    @property
    def num_waiting(self) -> int:
        """Requests that are not let in."""
        return len(self._waiting) + sum(not each.is_seen for each in list(self._open.values()))

    def take(self, submit: Submit) -> None:
        """A request with images; `step` tells when they have been looked at."""
        waiting = sum(len(each.file) for other in self._waiting for each in other.images)
        waiting += sum(len(file) for _, file in self._files)
        if waiting and waiting + sum(len(each.file) for each in submit.images) > MAX_WAITING_BYTES:
            full = f"images of {waiting} bytes wait to be looked at; try again later"
            self._seen.append(Seen(submit, QueueFull(full)))
            return
        self._waiting.append(submit)
        self._begin()

    def release(self, request_id: str) -> None:
        """A request has ended, wherever it was."""
        opened = self._open.pop(request_id, None)
        if opened is not None:
            for image in opened.images:
                self._embeddings.release(image)
        elif any(submit.id == request_id for submit in self._waiting):
            self._waiting = deque(each for each in self._waiting if each.id != request_id)
        self._seen = [each for each in self._seen if each.submit.id != request_id]
        self._begin()

    def ids_of(self, submit: Submit) -> list[int]:
        """A prompt's tokens as the scheduler knows them: those of images by ids of their own."""
        opened = self._open[submit.id]
        ids = iter([each for image in opened.images for each in image.ids()])
        token = self._sight.image_token_id
        return [next(ids) if each == token else each for each in submit.prompt_ids]

    def came(self, prepared: Prepared) -> None:
        """An image's pixels."""
        image, error = prepared.image, prepared.pixels.exception()
        if not image.num_leases or error is not None:
            self._num_prepared -= 1
            if error is not None:
                self._refuse(image, _told(error))
            self._prepare()
            return
        self._looking.append(_Looking(image, prepared.pixels.result()))

    def step(self) -> list[Seen]:
        """Looks at a few tiles; tells what has been seen since the last time."""
        if self._looking:
            self._look(self._looking[0])
        seen, self._seen = self._seen, []
        return seen

    def give_up(self, error: ServingError) -> None:
        """The image that `step` was at cannot be looked at."""
        if self._looking:
            self._end_looking()
            self._refuse(self._looking.popleft().image, error)

    # ------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Requests that there is room for."""
        while self._waiting:
            submit = self._waiting[0]
            if error := self._misfit(submit):
                self._waiting.popleft()
                self._seen.append(Seen(submit, InvalidRequest(error)))
                continue
            keys = [(submit.cache_salt, each.digest) for each in submit.images]
            counts = {key: each.num_tokens for key, each in zip(keys, submit.images, strict=True)}
            if not self._embeddings.fits(counts):
                break
            self._waiting.popleft()
            images = [self._lease(key, each) for key, each in zip(keys, submit.images, strict=True)]
            # Who runs for long keeps no files.
            without = [each._replace(file=b"") for each in submit.images]
            self._open[submit.id] = _Open(replace(submit, images=without), images)
            self._note_seen(images[0])
        self._prepare()

    def _misfit(self, submit: Submit) -> str:
        places = submit.prompt_ids.count(self._sight.image_token_id)
        rows = sum(each.num_tokens for each in submit.images)
        if places == rows:
            return ""
        return f"prompt: it has places for {places} tokens of images, and the images have {rows}"

    def _lease(self, key: Key, given: SubmittedImage) -> HeldImage:
        image = self._embeddings.lease(key, given.num_tokens)
        if image.rows is None and image.num_leases == 1:
            self._files.append((image, given.file))
        return image

    def _prepare(self) -> None:
        while self._files and self._num_prepared < MAX_PREPARED:
            image, file = self._files.popleft()
            if not image.num_leases:
                continue
            self._num_prepared += 1
            future = self._thread.submit(self._sight.pixels, file, image.num_rows)
            future.add_done_callback(
                lambda made, image=image: self._done(Prepared(image, made))  # type: ignore[misc]
            )

    def _look(self, looking: _Looking) -> None:
        image = looking.image
        if image.num_leases:
            first = looking.num_rows // self._sight.rows_per_tile
            rows = self._sight.look(looking.pixels, first)
            looking.parts.append(rows)
            looking.num_rows += len(rows)
            if looking.num_rows < image.num_rows:
                return
            image.rows = torch.cat(looking.parts)
            self._note_seen(image)
        self._looking.popleft()
        self._end_looking()

    def _end_looking(self) -> None:
        self._num_prepared -= 1
        self._prepare()

    def _note_seen(self, image: HeldImage) -> None:
        """Requests that have waited for it may be let in."""
        for opened in self._open.values():
            if not opened.is_seen and image in opened.images:
                opened.is_seen = all(each.rows is not None for each in opened.images)
                if opened.is_seen:
                    self._seen.append(Seen(opened.submit))

    def _refuse(self, image: HeldImage, error: ServingError) -> None:
        self._embeddings.disown(image)
        for opened in self._open.values():
            if not opened.is_seen and image in opened.images:
                opened.is_seen = True
                where = opened.submit.images[opened.images.index(image)].where
                self._seen.append(Seen(opened.submit, _at(where, error)))


def _at(where: str, error: ServingError) -> ServingError:
    """What is wrong with an image names its place in the request."""
    return InvalidRequest(f"{where}: {error.message}") if type(error) is InvalidRequest else error


def _told(error: BaseException) -> ServingError:
    if isinstance(error, ServingError):
        return error
    log.error("an image could not be made the model's input", exc_info=error)
    return BackendFailed(_UNPREPARED)

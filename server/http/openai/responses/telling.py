"""One response from its beginning to its end: its document at any time, and the events that tell of
it, numbered from 0."""

from collections.abc import Mapping, Sequence
from typing import Any

from trivet.backends.api import Chunk, Finish, ServingError
from trivet.server.http.openai.documents import cost_in, now_s
from trivet.server.http.openai.events import named_event
from trivet.server.http.openai.responses.document import error_of, usage
from trivet.server.http.openai.responses.output import OutputItems
from trivet.server.http.openai.responses.output_items import Event

ENDED = ("completed", "incomplete", "failed", "cancelled")


class Telling:
    """Ends once. Owned by the event loop."""

    def __init__(
        self,
        head: Mapping[str, Any],
        output: OutputItems,
        num_input: int,
        told: Mapping[str, str],
        *,
        is_queued: bool,
        is_streamed: bool,
    ) -> None:
        """`head`: what the document says from the start; `told`: of the version that computes it;
        `is_queued`: it runs in the background;
        `is_streamed`: events are written."""
        self.status = "queued" if is_queued else "in_progress"
        self._is_streamed = is_streamed
        self._head = head
        self._output = output
        self._num_input = num_input
        self._told = told
        self._error: dict[str, Any] | None = None
        self._reason: str | None = None
        """Why it is incomplete."""
        self._completed_s: int | None = None
        self._num_events = 0
        self._has_begun = False

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.status in ENDED

    def document(self) -> dict[str, Any]:
        """The response as it is now."""
        is_counted = self.status in ("completed", "incomplete")
        incomplete = None if self._reason is None else {"reason": self._reason}
        return {
            **self._head,
            "status": self.status,
            "completed_at": self._completed_s,
            "error": self._error,
            "incomplete_details": incomplete,
            "output": self._output.items(),
            "usage": self._usage() if is_counted else None,
        }

    def _usage(self) -> dict[str, Any]:
        return {**usage(self._num_input, self._output), **cost_in(self._told)}

    def begin(self) -> list[bytes]:
        """The first events; none the second time."""
        if self._has_begun:
            return []
        self._has_begun = True
        second = "queued" if self.status == "queued" else "in_progress"
        return self._whole("created") + self._whole(second)

    def take(self, chunks: Sequence[tuple[int, Chunk]]) -> list[bytes]:
        """The events of some chunks, the end among them if it has come."""
        told = self.begin()
        if self.status == "queued":
            self.status = "in_progress"
            told += self._whole("in_progress")
        for _, chunk in chunks:
            told += self._numbered(self._output.take(chunk))
            if chunk.finish is not None:
                told += self._finished(chunk.finish)
        return told

    def fail(self, error: ServingError) -> list[bytes]:
        """It ends with an error. The events of that; none if it has ended."""
        self._error = self._error if self.is_over else error_of(error)
        return self._cut_off("failed", "failed")

    def forget(self) -> None:
        """Gives up what has been written so far; what follows tells of its end alone."""
        self._output.forget()

    def cancel(self) -> list[bytes]:
        """It ends because somebody said so. The API has no event of that name: it is incomplete,
        and its status says why."""
        return self._cut_off("cancelled", "incomplete")

    def _finished(self, finish: Finish) -> list[bytes]:
        if finish.reason == "length":
            self._reason = "max_output_tokens"
        else:
            self._completed_s = now_s()
        status = "completed" if self._reason is None else "incomplete"
        told = self._numbered(self._output.end(status))
        self.status = status
        return told + self._whole(status)

    def _cut_off(self, status: str, kind: str) -> list[bytes]:
        if self.is_over:
            return []
        told = self.begin() + self._numbered(self._output.end("incomplete"))
        self.status = status
        return told + self._whole(kind)

    def _whole(self, kind: str) -> list[bytes]:
        if not self._is_streamed:
            return []
        return self._numbered([{"type": f"response.{kind}", "response": self.document()}])

    def _numbered(self, events: Sequence[Event]) -> list[bytes]:
        if not self._is_streamed:
            return []
        told = []
        for event in events:
            event["sequence_number"] = self._num_events
            self._num_events += 1
            told.append(named_event(event["type"], event))
        return told

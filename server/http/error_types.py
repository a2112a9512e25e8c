"""Errors in the form of Hugging Face's servers: a text and an `error_type`, by a table of each."""

from dataclasses import dataclass

import orjson

from trivet.backends.api import ServingError, TooLarge
from trivet.server.http.answers import Answer
from trivet.server.http.errors import headers_of, status_of

Row = tuple[type[ServingError], str, int | None]
"""Class, `error_type`, status; None: the status that the class has everywhere."""


@dataclass(frozen=True, slots=True)
class ErrorTypes:
    """The table of one API. The first row whose class an error is counts; the last takes all."""

    rows: tuple[Row, ...]

    def document(self, error: ServingError) -> dict[str, str]:
        """The body of an error answer, or of an event that ends a stream."""
        message = error.message.encode(errors="replace").decode()
        return {"error": message, "error_type": self._row(error)[1]}

    def refusal(self, error: ServingError) -> Answer:
        """The answer that an error is."""
        status = self._row(error)[2]
        answer = Answer(
            (orjson.dumps(self.document(error)),),
            status=status_of(error) if status is None else status,
            extra_headers=headers_of(error),
        )
        if isinstance(error, TooLarge):
            answer.force_close()
        return answer

    def _row(self, error: ServingError) -> Row:
        return next(row for row in self.rows if isinstance(error, row[0]))

"""Errors in Ollama's form: a text under the name `error`."""

from typing import Any

import orjson

from trivet.backends.api import ServingError
from trivet.server.http.answers import Answer, error_answer
from trivet.server.http.errors import headers_of
from trivet.server.http.guarding import answering
from trivet.server.http.openai.errors import error_status


def refusal(error: ServingError) -> Answer:
    """The answer that an error is."""
    return error_answer(int(error_status(error)), error.message, headers_of(error))


def error_line(error: ServingError) -> bytes:
    """The line that ends a stream with an error."""
    return line({"error": error.message.encode(errors="replace").decode()})


def line(document: dict[str, Any]) -> bytes:
    """One of a stream."""
    return orjson.dumps(document) + b"\n"


answers_errors = answering(refusal)
"""Gives a handler's errors their form here."""

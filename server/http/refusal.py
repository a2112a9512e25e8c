"""Errors that come from before a handler, in the form of the API that was asked."""

from aiohttp import web

from trivet.backends.api import ServingError
from trivet.server.http.answers import Answer, error_answer
from trivet.server.http.anthropic import errors as anthropic_errors
from trivet.server.http.errors import headers_of, status_of
from trivet.server.http.ollama import errors as ollama_errors
from trivet.server.http.openai import errors as openai_errors
from trivet.server.http.operations import ANTHROPIC, OLLAMA, OPENAI, TEI, TGI
from trivet.server.http.routes import Route
from trivet.server.http.tei import errors as tei_errors
from trivet.server.http.tgi import errors as tgi_errors


def refusal(error: ServingError, route: Route, request: web.BaseRequest) -> Answer:
    """The answer that the error is to a request of the route."""
    tag = route.operation.tag
    if tag == OPENAI:
        answer = openai_errors.refusal(error)
    elif tag == ANTHROPIC:
        answer = anthropic_errors.refusal(error)
    elif tag == OLLAMA:
        answer = ollama_errors.refusal(error)
    elif tag == TGI:
        answer = tgi_errors.refusal(error)
    elif tag == TEI:
        answer = tei_errors.refusal(error)
    else:
        answer = error_answer(status_of(error), error.message, headers_of(error))
    if not request.content.is_eof():
        # Who may not ask is not listened to: the rest of the body would be read for nothing.
        answer.force_close()
    return answer

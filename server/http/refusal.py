"""Errors that come from before a handler, in the form of the API that was asked."""

from aiohttp import web

from trivet.backends.api import ServingError
from trivet.server.http.answers import Answer, error_answer
from trivet.server.http.errors import headers_of, status_of
from trivet.server.http.openai import errors as openai_errors
from trivet.server.http.tgi import errors as tgi_errors

_TGI = frozenset({"/", "/generate", "/generate_stream", "/info", "/chat_tokenize"})
_OPENAI = frozenset({"/tokenize", "/detokenize", "/version", "/load"})


def refusal(error: ServingError, template: str, request: web.BaseRequest) -> Answer:
    """The answer that the error is to a request of the route with this template."""
    if template.startswith("/v1/") or template in _OPENAI:
        answer = openai_errors.refusal(error)
    elif template in _TGI:
        answer = tgi_errors.refusal(error)
    else:
        answer = error_answer(status_of(error), error.message, headers_of(error))
    if not request.content.is_eof():
        # Who may not ask is not listened to: the rest of the body would be read for nothing.
        answer.force_close()
    return answer

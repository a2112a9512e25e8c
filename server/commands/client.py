"""A small HTTP client for the verbs: JSON in, JSON out, errors that say what to do."""

import http.client
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click
import orjson

Command = TypeVar("Command", bound=Callable[..., Any])

_CONNECTIONS = {"https": http.client.HTTPSConnection}
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
LOAD_TIMEOUT_S = 300.0
"""A load answers when the model serves, which can take minutes."""


@dataclass(frozen=True, slots=True)
class Client:
    """Calls one server."""

    url: str
    api_key: str = ""
    """For servers that ask for one."""
    timeout_s: float = LOAD_TIMEOUT_S

    def call(self, method: str, path: str, body: object | None = None) -> Any:
        """The answer's JSON value. Raises ClickException with the server's own text."""
        data = None if body is None else orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        return _value(*self._ask(method, path, data))

    def status(self, path: str) -> int:
        """What a GET is answered with, good or bad. Raises ClickException without an answer."""
        return self._ask("GET", path, None)[0]

    def events(
        self, path: str, body: object, headers: Mapping[str, str] = NO_HEADERS
    ) -> Iterator[Any]:
        """The JSON values of a stream's events, as they come; closing it tells the server to stop.
        Raises ClickException, also for an event that says what went wrong, and for a stream whose
        server is gone before its end: http.client takes that for the end."""
        with self._asked("POST", path, orjson.dumps(body), headers) as answer:
            if answer.status >= 400:
                _value(answer.status, answer.read())
            for line in answer:
                data = line.removeprefix(b"data:").strip()
                if data == b"[DONE]":
                    return
                if data == line.strip():
                    continue
                event = orjson.loads(data)
                if "error" in event:
                    raise click.ClickException(_text_of(event))
                yield event
        raise click.ClickException(f"the answer of {self.url} broke off: the server is gone")

    def _ask(self, method: str, path: str, data: bytes | None) -> tuple[int, bytes]:
        with self._asked(method, path, data) as answer:
            return answer.status, answer.read()

    @contextmanager
    def _asked(
        self, method: str, path: str, data: bytes | None, more: Mapping[str, str] = NO_HEADERS
    ) -> Iterator[http.client.HTTPResponse]:
        parts = urlsplit(self.url if "//" in self.url else f"http://{self.url}")
        if not parts.hostname:
            raise click.BadParameter(f"'{self.url}' is no address; give one like localhost:8000")
        kind = _CONNECTIONS.get(parts.scheme, http.client.HTTPConnection)
        connection = kind(parts.hostname, parts.port or 8000, timeout=self.timeout_s)
        headers = {"Content-Type": "application/json", **more}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        try:
            connection.request(method, path, data, headers)
            yield connection.getresponse()
        except OSError as error:
            raise click.ClickException(
                f"no server answers at {self.url}: {error}. Start one with `trivet serve FOLDER` "
                "or name another with --url (of models, rollout and traffic "
                "it stands before the verb: `trivet traffic --url URL show NAME`)"
            ) from None
        except http.client.HTTPException as error:
            raise click.ClickException(
                f"the answer of {self.url} broke off, or is no HTTP: {type(error).__name__} {error}"
            ) from None
        finally:
            connection.close()


def api_key_option(command: Command) -> Command:
    """`--api-key`, which is better given in the environment: other users see command lines."""
    option = click.option(
        "--api-key", default="", envvar="TRIVET_API_KEY", help="key, where the server asks for one"
    )
    return option(command)


def _text_of(value: dict[str, Any]) -> str:
    """What went wrong, in Triton's form or in OpenAI's."""
    error = value.get("error", "")
    return str(error.get("message", "") if isinstance(error, dict) else error)


def _value(status: int, text: bytes) -> Any:
    try:
        value = orjson.loads(text) if text else {}
    except orjson.JSONDecodeError:
        raise click.ClickException(f"the server answered {status} without JSON") from None
    if status >= 400:
        message = _text_of(value) if isinstance(value, dict) else ""
        raise click.ClickException(f"{message or 'refused'} (status {status})")
    return value

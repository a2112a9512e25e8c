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

from trivet import __version__
from trivet.server.commands.exits import KeyRefused, NobodyAnswers, NotThere, OtherVersion

Command = TypeVar("Command", bound=Callable[..., Any])

_CONNECTIONS = {"https": http.client.HTTPSConnection}
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
DEFAULT_PORT = 8000
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
        return self._value(path, *self._ask(method, path, data))

    def send(
        self, path: str, data: bytes, headers: Mapping[str, str]
    ) -> tuple[bytes, Mapping[str, str]]:
        """The body and headers of what bytes are answered with. Raises ClickException."""
        with self._asked("POST", path, data, headers) as answer:
            text = answer.read()
            if answer.status >= 400:
                self._value(path, answer.status, text)
            return text, dict(answer.getheaders())

    def text(self, path: str) -> str:
        """The text that a GET is answered with. Raises ClickException."""
        status, text = self._ask("GET", path, None)
        if status >= 400:
            self._value(path, status, text)
        return text.decode("utf-8", "replace")

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
                self._value(path, answer.status, answer.read())
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
        raise NobodyAnswers(f"the answer of {self.url} broke off: the server is gone")

    def _ask(self, method: str, path: str, data: bytes | None) -> tuple[int, bytes]:
        with self._asked(method, path, data) as answer:
            return answer.status, answer.read()

    @contextmanager
    def _asked(
        self,
        method: str,
        path: str,
        data: bytes | None,
        more_headers: Mapping[str, str] = NO_HEADERS,
    ) -> Iterator[http.client.HTTPResponse]:
        headers = {"Content-Type": "application/json", **more_headers}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        connection = _connection(self.url, self.timeout_s)
        try:
            connection.request(method, path, data, headers)
            yield connection.getresponse()
        except (OSError, UnicodeError) as error:
            raise NobodyAnswers(
                f"no server answers at {self.url}: {error}. Start one with `trivet serve FOLDER` "
                "or name another with --url (of models, rollout and traffic "
                "it stands before the verb: `trivet traffic --url URL show NAME`)"
            ) from None
        except ValueError as error:  # of http.client: what cannot stand in a request
            raise click.ClickException(f"{method} {path[:80]} cannot be asked: {error}") from None
        except http.client.HTTPException as error:
            raise OtherVersion(
                f"the answer of {self.url} broke off, or is no HTTP: {type(error).__name__} {error}"
            ) from None
        finally:
            connection.close()

    def _value(self, path: str, status: int, text: bytes) -> Any:
        try:
            value = orjson.loads(text) if text else {}
        except orjson.JSONDecodeError:
            raise OtherVersion(
                f"{self.url} answered {status} without JSON: that is no trivet, or not of this "
                f"version, {__version__}"
            ) from None
        if status >= 400:
            raise self._refusal(path, status, _text_of(value) if isinstance(value, dict) else "")
        return value

    def _refusal(self, path: str, status: int, told: str) -> click.ClickException:
        text = f"{told or 'refused'} (status {status})"
        if status in (401, 403):
            return KeyRefused(
                f"{text}: give a key that may do this, as TRIVET_API_KEY or --api-key; "
                "`trivet keys create --help` makes one"
            )
        if status in (404, 405) and _is_no_route(told):
            what = path.partition("?")[0]
            return OtherVersion(
                f"{self.url} does not know {what}: it is trivet of another version than this "
                f"command, {__version__}, or another server; use the trivet that it runs"
            )
        return NotThere(text) if status == 404 else click.ClickException(text)


def _connection(url: str, timeout_s: float) -> http.client.HTTPConnection:
    """Not opened yet. Raises UsageError for what is no address."""
    try:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _no_address(url, str(error)) from None
    if not host or parts.scheme not in ("http", "https"):
        raise _no_address(url, "" if parts.hostname else "there is no host in it")
    kind = _CONNECTIONS.get(parts.scheme, http.client.HTTPConnection)
    try:
        return kind(host, port or DEFAULT_PORT, timeout=timeout_s)
    except (http.client.InvalidURL, ValueError) as error:
        raise _no_address(url, str(error)) from None


def _no_address(url: str, why: str) -> click.UsageError:
    told = f" ({why})" if why else ""
    return click.UsageError(
        f"'{url[:200]}' is no address of a server{told}; give one like http://localhost:8000"
    )


def _is_no_route(told: str) -> bool:
    return told in ("Not Found", "Method Not Allowed") or told.startswith("Unknown request URL")


def url_option(command: Command) -> Command:
    """`--url`, where the server is."""
    option = click.option(
        "--url", default="http://127.0.0.1:8000", show_default=True, help="HTTP address"
    )
    return option(command)


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

"""A small HTTP client for the verbs: JSON in, JSON out, errors that say what to do."""

import http.client
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import click
import orjson

TIMEOUT_S = 300.0
"""A load answers when the model serves, which can take minutes."""


@dataclass(frozen=True, slots=True)
class Client:
    """Calls one server."""

    url: str

    def call(self, method: str, path: str, body: object | None = None) -> Any:
        """The answer's JSON value. Raises ClickException with the server's own text."""
        parts = urlsplit(self.url if "//" in self.url else f"http://{self.url}")
        if not parts.hostname:
            raise click.BadParameter(f"'{self.url}' is no address; give one like localhost:8000")
        connection = http.client.HTTPConnection(parts.hostname, parts.port or 8000, TIMEOUT_S)
        data = None if body is None else orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        try:
            connection.request(method, path, data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        except OSError as error:
            raise click.ClickException(
                f"no server answers at {self.url}: {error}. Start one with `trivet serve FOLDER` "
                "or name another with --url"
            ) from None
        finally:
            connection.close()
        return _value(answer.status, text)


def _value(status: int, text: bytes) -> Any:
    try:
        value = orjson.loads(text) if text else {}
    except orjson.JSONDecodeError:
        raise click.ClickException(f"the server answered {status} without JSON") from None
    if status >= 400:
        message = value.get("error", "") if isinstance(value, dict) else ""
        raise click.ClickException(f"{message or 'refused'} (status {status})")
    return value

"""What goes wrong with an MLflow registry and its artifacts, as sentences that help."""

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from trivet.server.remote.source import RemoteError, Unreachable

_CLIENTS = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("google.api_core.exceptions", "GoogleAPIError"),
    ("azure.core.exceptions", "AzureError"),
)
"""Errors of the libraries by which MLflow reads buckets: looked at where one has been imported."""
_LONGEST = 300


@contextmanager
def refusals(registry: str, what: str) -> Iterator[None]:
    """Makes RemoteErrors of what MLflow and its clients raise. `what` was asked for."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except ModuleNotFoundError as error:
        raise RemoteError(
            f"{what}: MLflow needs the package '{error.name}' for {registry} or for the place of "
            f"the model's files: pip install {error.name}"
        ) from None
    except MlflowException as error:
        raise _of_mlflow(error, registry, what) from None
    except _client_errors() as error:
        raise _of_client(error, registry, what) from None


def _client_errors() -> tuple[type[Exception], ...]:
    modules = ((sys.modules.get(module), name) for module, name in _CLIENTS)
    return OSError, *(getattr(module, name) for module, name in modules if module is not None)


def _of_mlflow(error: Any, registry: str, what: str) -> RemoteError:
    behind = error.__cause__ or error.__context__
    bucket = getattr(behind, "response", None)
    if isinstance(bucket, Mapping):  # botocore's
        return _of_bucket(bucket, what)
    if isinstance(behind, OSError):  # as all of `requests` are
        return _unreachable(behind, registry, what)
    return _by_status(error.get_http_status_code(), str(error), registry, what)


def _of_client(error: Exception, registry: str, what: str) -> RemoteError:
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        return _of_bucket(response, what)
    status = getattr(response, "status_code", None)
    if isinstance(status, int):
        return _by_status(status, str(error), registry, what)
    return _unreachable(error, registry, what)


def _of_bucket(response: Mapping[str, Any], what: str) -> RemoteError:
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = response.get("Error", {}).get("Code", "")
    text = f"{what}: the bucket with the model's files answers {status} {code}"
    if status == 429 or status >= 500:
        return Unreachable(text)
    return RemoteError(
        f"{text}: the server needs credentials that may list and read it (AWS_ACCESS_KEY_ID, "
        "AWS_SECRET_ACCESS_KEY, MLFLOW_S3_ENDPOINT_URL), and the files must be there"
    )


def _unreachable(error: Exception, registry: str, what: str) -> Unreachable:
    refused = re.search(r"too many (\d+) error responses", str(error))
    if refused:
        return Unreachable(f"{what}: the registry at {registry} answers {refused[1]} now")
    return Unreachable(
        f"{what}: the registry at {registry}, or the place of the model's files, does not answer "
        f"({type(error).__name__}): check MLFLOW_TRACKING_URI and the network"
    )


def _by_status(status: int, message: str, registry: str, what: str) -> RemoteError:
    said = _shown(message)
    if status in (401, 403):
        return RemoteError(
            f"{what}: the registry at {registry} does not let the server read it ({status}): set "
            "MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    if status == 429 or status >= 500:
        return Unreachable(f"{what}: the registry at {registry} fails: {said}")
    return RemoteError(f"{what}: the registry at {registry} says no: {said}")


def _shown(message: str) -> str:
    line = " ".join(message.split())
    return re.sub(r"//[^/@\s]*@", "//", line)[:_LONGEST]

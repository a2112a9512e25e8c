"""What a hub's refusals mean, as sentences that help. Pure."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from trivet.server.remote.source import RemoteError, Unreachable

_GATED = "GatedRepo"
_NO_REVISION = "RevisionNotFound"
_NO_FILE = "EntryNotFound"
_WINDOW = re.compile(r"\br\s*=\s*0\s*;\s*t\s*=\s*(\d+)")
"""Of the header RateLimit: nothing is left, for so many seconds."""
_DISABLED = "Access to this resource is disabled."
_BAD_TOKEN = "Invalid credentials in Authorization header"  # noqa: S105 - a text of the hub


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked of which hub, and as whom."""

    endpoint: str
    repo: str
    revision: str
    has_token: bool

    @property
    def page(self) -> str:
        """Where a person finds the repository."""
        return f"{self.endpoint}/{self.repo}"


def refusal(question: Question, status: int, headers: Mapping[str, str]) -> RemoteError:
    """Of an answer that is no success. The hub says 401 of what is not there, too, and tells the
    cases apart in headers alone."""
    code, message = headers.get("x-error-code", ""), headers.get("x-error-message", "")
    if status == 429:
        wait_s = _wait_s(headers)
        return Unreachable(_patience(question, wait_s), wait_s)
    if status >= 500:
        return Unreachable(f"{question.endpoint} answers {status} for '{question.repo}' now")
    if code == _GATED:
        return RemoteError(_gated(question))
    if message == _DISABLED:
        return RemoteError(f"'{question.repo}' has been disabled by the hub: see {question.page}")
    if message == _BAD_TOKEN or (status == 401 and question.has_token and not code):
        return RemoteError(
            f"{question.endpoint} does not know the token that was sent: set HF_TOKEN to a valid "
            "one, or unset it for public models (`hf auth whoami` tells whose it is)"
        )
    if code == _NO_REVISION:
        return RemoteError(
            f"'{question.repo}' has no revision '{question.revision}': its branches and tags are "
            f"at {question.page}/tree/main; the address takes those and commits, ORG/NAME@REVISION"
        )
    if status == 403:
        return RemoteError(
            f"{question.endpoint} does not let the token read '{question.repo}' (403"
            f"{': ' + message[:200] if message else ''}): give HF_TOKEN one with read access to it"
        )
    if status in (401, 404):
        return RemoteError(_not_there(question))
    return RemoteError(
        f"{question.endpoint} answers {status} for '{question.repo}'"
        f"{': ' + message[:200] if message else ''}"
    )


def is_file_gone(status: int, headers: Mapping[str, str]) -> bool:
    """Whether the repository is there and a file of it is not, or not its commit any more."""
    return status == 404 and headers.get("x-error-code") in (_NO_FILE, _NO_REVISION)


def _gated(question: Question) -> str:
    terms = f"'{question.repo}' is gated: accept its terms at {question.page}"
    if question.has_token:
        return f"{terms} with the account whose token is given, and wait until access is granted"
    return f"{terms} and set HF_TOKEN to a token of that account"


def _not_there(question: Question) -> str:
    text = f"{question.endpoint} has no model '{question.repo}', or it is private"
    if question.has_token:
        return f"{text} and the token may not read it: check the name and the token's access"
    return f"{text} and no token is given: check the name, or set HF_TOKEN"


def _wait_s(headers: Mapping[str, str]) -> float:
    """How long the hub wants to be left alone; 0 where it does not say in seconds."""
    told = headers.get("retry-after", "").strip()
    if told.isdigit():
        return float(told)
    window = _WINDOW.search(headers.get("ratelimit", ""))
    return float(window[1]) if window else 0.0


def _patience(question: Question, wait_s: float) -> str:
    when = f"in {wait_s:.0f} s" if wait_s else "later"
    advice = "" if question.has_token else "; with a token (HF_TOKEN) it allows more"
    return (
        f"{question.endpoint} has had too many requests (429) and asks to come back {when}{advice}"
    )


def offline(repo: str, model: str) -> Unreachable:
    """Where the operator has said that there is no network."""
    text = (
        f"HF_HUB_OFFLINE is set, so '{repo}' is not asked for: unset it, or fetch the model where "
        f"there is a network (hf download {repo} --local-dir {model}) and serve the folder"
    )
    return Unreachable(text, math.inf)

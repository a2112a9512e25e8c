"""`hf://ORG/NAME[@REVISION][/FILE]`: a model of a hub, as a repository that holds this one model.

Its files lie under NAME/VERSION. What is served first is version 1; when the branch has moved on to
other files these are the next version. The one before serves until they are loaded, and is listed
as long as it serves: they may be broken. A commit never moves, so the hub is asked for it once.
"""

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
from huggingface_hub import constants, get_session, get_token
from huggingface_hub.errors import OfflineModeIsEnabled

from trivet import __version__
from trivet.server.remote.hub_address import COMMIT, Address, read_address
from trivet.server.remote.hub_answers import Question, is_file_gone, offline, refusal
from trivet.server.remote.hub_files import PICKLES, Places, choose
from trivet.server.remote.resuming import behind
from trivet.server.remote.source import CHUNK_BYTES, Changed, RemoteError, Stamp, Unreachable
from trivet.server.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Version:
    """What the model's version is made of."""

    number: int
    commit: str
    places: Places
    stamps: Mapping[str, Stamp]
    """By path in the version folder."""


@dataclass(frozen=True, slots=True)
class _LeftAlone:
    """That the hub has asked for patience: in which words, and until when (monotonic)."""

    text: str
    until_s: float


def open_hub(address: str, settings: Settings) -> "HubSource":  # noqa: ARG001 - of OpenSource
    """See OpenSource. The token is the one of HF_TOKEN, or of `hf auth login`."""
    return HubSource(address, read_address(address))


class HubSource:
    """A model of the hub at HF_ENDPOINT (huggingface.co). Its lock guards what is numbered."""

    def __init__(self, text: str, address: Address) -> None:
        self.address = text
        self._asked = address
        self._endpoint = constants.ENDPOINT
        self._lock = threading.Lock()
        self._version: _Version | None = None
        self._before: tuple[_Version, ...] = ()
        """Versions that may serve yet."""
        self._kept: frozenset[int] = frozenset()
        self._left_alone = _LeftAlone("", 0.0)

    @property
    def model(self) -> str:
        """See OneModel."""
        return self._asked.model

    def keep(self, versions: frozenset[int]) -> None:
        """See OneModel."""
        self._kept = versions

    def listing(self) -> dict[str, Stamp]:
        """See Source."""
        with self._lock:
            if self._version is None or not self._asked.is_fixed:
                self._version = self._next(*self._ask())
            kept = self._kept
            self._before = tuple(each for each in self._before if each.number in kept)
            versions = (*self._before, self._version)
        return {
            f"{self.model}/{version.number}/{place}": stamp
            for version in versions
            for place, stamp in version.stamps.items()
        }

    def fetch(self, path: str, stamp: Stamp, into: Path, at: int) -> Iterator[int]:
        """See Source."""
        commit, remote = self._origin(path, stamp)
        with into.open("ab") as file:
            if at == stamp.size:
                return
            with self._answer(f"resolve/{commit}/{quote(remote)}", at) as response:
                _check_length(remote, _length(response), stamp)
                for chunk in _rest(at, response):
                    at += len(chunk)
                    _check_length(remote, max(at, stamp.size), stamp)
                    file.write(chunk)
                    file.flush()
                    yield len(chunk)
        if at < stamp.size:
            raise Unreachable(f"{self._endpoint} broke off '{remote}' after {at} bytes")

    # -- versions ------------------------------------------------------------------------------

    def _next(self, commit: str, files: Mapping[str, Stamp | None]) -> _Version:
        """The version that these files are: the one before, if they are the same."""
        before, where = self._version, self._asked.repository
        if before is not None and before.commit == commit:
            return before
        places = choose(files, self._asked.file, where)
        stamps = {
            place: files[path] or self._measured(commit, path) for place, path in places.items()
        }
        _refuse_huge(stamps, where)
        if before is not None and before.stamps == stamps:
            return _Version(before.number, commit, places, stamps)
        number = 1 if before is None else before.number + 1
        if before is not None:
            self._before = (*self._before, before)
        log.info(
            "%s: commit %s is version %d of model '%s'%s",
            self.address,
            commit[:12],
            number,
            self._asked.model,
            _left_out(files, places),
        )
        return _Version(number, commit, places, stamps)

    def _origin(self, path: str, stamp: Stamp) -> tuple[str, str]:
        """The commit and the path there of a file that was listed. Raises Changed."""
        with self._lock:
            versions = (*self._before, self._version)
        for version in versions:
            assert version is not None, "fetched before it was listed"
            place = path.removeprefix(f"{self.model}/{version.number}/")
            if version.stamps.get(place) == stamp:
                return version.commit, version.places[place]
        raise Changed

    # -- the hub -------------------------------------------------------------------------------

    def _ask(self) -> tuple[str, dict[str, Stamp | None]]:
        """The commit that the revision is now, and its files; some mirrors do not list sizes."""
        revision = quote(self._asked.revision, safe="")
        with self._answer(f"revision/{revision}?blobs=true", 0, "api/models/") as response:
            response.read()
            try:
                found = response.json()
                return _commit(found["sha"]), dict(map(_stamped, found["siblings"]))
            except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
                raise RemoteError(
                    f"{self._endpoint} answered for '{self._asked.repo}' with something that is no "
                    f"hub's description of a model ({type(error).__name__}): check HF_ENDPOINT"
                ) from None

    def _measured(self, commit: str, path: str) -> Stamp:
        """Of a file whose size is not listed, as the hub tells it where it hands the file out."""
        with self._answer(f"resolve/{commit}/{quote(path)}", 0, method="HEAD") as response:
            headers, is_elsewhere = response.headers, response.is_redirect
        size = headers.get("x-linked-size", "" if is_elsewhere else headers.get("content-length"))
        tag = headers.get("x-linked-etag") or headers.get("etag")
        if not tag or not size or not size.isdigit():
            raise RemoteError(
                f"{self._endpoint} tells no size and ETag of '{path}' in '{self._asked.repo}', "
                "neither where it lists the file nor where it hands it out: check HF_ENDPOINT"
            )
        return Stamp(int(size), f"etag:{tag}")

    @contextmanager
    def _answer(
        self, what: str, at: int, before: str = "", method: str = "GET"
    ) -> Iterator[httpx2.Response]:
        """The hub's answer, a success, from byte `at` on; to HEAD also where else the file is.
        Raises RemoteError, Changed."""
        self._keep_away()
        token = get_token()
        headers = {"user-agent": f"trivet/{__version__}", "accept-encoding": "identity"}
        headers |= {"authorization": f"Bearer {token}"} if token else {}
        headers |= {"range": f"bytes={at}-"} if at else {}
        url = f"{self._endpoint}/{before}{self._asked.repo}/{what}"
        try:
            with get_session().stream(
                method,
                url,
                headers=headers,
                timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
                follow_redirects=method == "GET",
            ) as response:
                if not response.is_success and not response.is_redirect:
                    raise self._refused(response, has_token=bool(token), is_file=not before)
                yield response
        except OfflineModeIsEnabled:
            raise offline(self._asked.repo, self._asked.model) from None
        except httpx2.HTTPError as error:
            raise Unreachable(
                f"{self._endpoint} does not answer for '{self._asked.repo}' "
                f"({type(error).__name__}): check the network and HF_ENDPOINT"
            ) from None

    def _refused(self, response: httpx2.Response, *, has_token: bool, is_file: bool) -> Exception:
        status, headers = response.status_code, response.headers
        if response.history:
            return Unreachable(f"the storage of {self._endpoint} answers {status} now")
        if is_file and (status == 416 or is_file_gone(status, headers)):
            return Changed()
        asked = self._asked
        question = Question(self._endpoint, asked.repo, asked.revision, has_token)
        error = refusal(question, status, headers)
        if isinstance(error, Unreachable) and error.wait_s:
            self._left_alone = _LeftAlone(str(error), time.monotonic() + error.wait_s)
        return error

    def _keep_away(self) -> None:
        """Raises Unreachable while the hub has asked for patience: each poll would cost more of
        it."""
        alone = self._left_alone
        left_s = alone.until_s - time.monotonic()
        if left_s > 0:
            raise Unreachable(alone.text, left_s)


def _commit(value: Any) -> str:
    if not isinstance(value, str) or not COMMIT.fullmatch(value):
        raise ValueError("a commit has 40 hexadecimal digits")
    return value


def _stamped(sibling: Mapping[str, Any]) -> tuple[str, Stamp | None]:
    """A file of the hub's description. Raises KeyError, TypeError, ValueError."""
    path, size, lfs = sibling["rfilename"], sibling.get("size"), sibling.get("lfs")
    if isinstance(path, str) and size is None:
        return path, None
    if not isinstance(path, str) or type(size) is not int or size < 0:
        raise TypeError("a file has a path and a size")
    if lfs is None:
        return path, Stamp(size, f"git:{sibling['blobId']}")
    sha256 = str(lfs["sha256"])
    return path, Stamp(size, f"sha256:{sha256}", sha256)


def _refuse_huge(stamps: Mapping[str, Stamp], where: str) -> None:
    most = constants.MAX_HTTP_DOWNLOAD_SIZE
    for place, stamp in stamps.items():
        if stamp.size > most:
            raise RemoteError(
                f"{where}: '{place}' has {stamp.size} bytes, and a hub gives out {most} at most as "
                "one file; fetch it by `hf download` and serve the folder"
            )


def _left_out(files: Mapping[str, object], places: Places) -> str:
    others = sorted(files.keys() - set(places.values()))
    pickles = [path for path in others if path.endswith(PICKLES)]
    if not others:
        return ""
    why = f", among them {pickles[0]}: pickles are never fetched" if pickles else ""
    return f"; {len(others)} other files stay there{why}"


def _rest(at: int, response: httpx2.Response) -> Iterator[bytes]:
    """The file's bytes from `at` on, also where the hub sends it from its beginning."""
    begins = response.headers.get("content-range", "bytes 0-")
    if not begins.startswith((f"bytes {at}-", "bytes 0-")):
        raise Unreachable(f"the hub sent '{begins}' of a file, asked for what begins at {at}")
    skip = at if begins.startswith("bytes 0-") else 0
    return behind(response.iter_bytes(CHUNK_BYTES), skip)


def _length(response: httpx2.Response) -> int | None:
    """Of the whole file, where the answer tells it."""
    headers = response.headers
    told = headers.get("content-range", "").rpartition("/")[2]
    if response.status_code == 200 and "content-encoding" not in headers:
        told = headers.get("content-length", "")
    return int(told) if told.isdigit() else None


def _check_length(remote: str, length: int | None, stamp: Stamp) -> None:
    if length is not None and length != stamp.size:
        raise RemoteError(
            f"the hub sends '{remote}' with {length} bytes and lists it with {stamp.size}: what "
            "answers is no hub (a proxy's page?), or its copy is broken"
        )

"""What an `hf://` address says. Its form is the hub's own: hf://ORG/NAME[@REVISION][/FILE]."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote

from trivet.server.remote.source import RemoteError

COMMIT = re.compile(r"[0-9a-f]{40}")
_USUAL_REVISION = "main"
_ADDRESS = re.compile(
    r"hf://(?:models/)?(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)"
    r"(?:@(?P<revision>refs/(?:pr/\d+|convert/[\w.-]+)|(?:[\w.+-]|%2F)+))?"
    r"(?:/(?P<file>[^?]+))?(?:\?(?P<query>.*))?"
)
_OTHER_KIND = re.compile(r"hf://(datasets|spaces|kernels|buckets)/")
_TOKEN = re.compile(r"hf_[A-Za-z0-9]{20,}|//[^/@]*:[^/@]*@")
"""What an address must not hold, wherever it stands in it."""
_IGNORED_ENDINGS = re.compile(r"(~|\.swp|\.swx|\.tmp|\.part|\.crdownload)$")
"""Of folders that are no models (`repository.scan`)."""
_FORM = "hf://ORG/NAME, hf://ORG/NAME@REVISION or hf://ORG/NAME/FILE"


@dataclass(frozen=True, slots=True)
class Address:
    """What an address says."""

    repo: str
    revision: str
    """A branch, a tag or a commit."""
    file: str
    """Of the repository, where the address names one."""

    @property
    def repository(self) -> str:
        """The address without the file."""
        is_usual = self.revision == _USUAL_REVISION
        return f"hf://{self.repo}{'' if is_usual else f'@{self.revision}'}"

    @property
    def is_fixed(self) -> bool:
        """Whether it names a commit."""
        return COMMIT.fullmatch(self.revision) is not None

    @property
    def model(self) -> str:
        """The model's name: the last part of the repository's."""
        name = self.repo.rpartition("/")[2]
        return _IGNORED_ENDINGS.sub(lambda found: f"{found[0].replace('.', '-')}", name)


def read_address(text: str) -> Address:
    """Raises RemoteError."""
    if _TOKEN.search(text):
        raise RemoteError(
            f"an hf:// address holds no token: its form is {_FORM}; give the token as HF_TOKEN"
        )
    found = _ADDRESS.fullmatch(text)
    kind = _OTHER_KIND.match(text)
    if found is None or kind:
        why = f"'{kind[1]}' are no models" if kind else "it does not have the form"
        raise RemoteError(f"model repository '{text}': {why}; the form is {_FORM}")
    query = parse_qs(found["query"] or "")
    if query.keys() - {"file"} or (query and found["file"]):
        raise RemoteError(f"model repository '{text}': only ?file=FILE may follow ORG/NAME")
    file = found["file"] or query.get("file", [""])[0]
    return Address(found["repo"], unquote(found["revision"] or _USUAL_REVISION), file)

"""`traffic.toml` beside a model's version folders: names for versions, and who gets which of them.

sticky = ["header:x-user", "cookie:session", "user"]

[labels]
stable = 3
canary = 4

[split]
stable = 95
canary = 5

In the place of [split] may stand [rollout], how new versions get their part by and by
(`server/rollouts/policy.py`); [shadow] says who is asked beside (`shadowing.py`).
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Self

from trivet.backends.api import InvalidConfig, InvalidRequest, UnreadableFiles
from trivet.server.models.shadowing import Shadow, parse_shadow
from trivet.server.models.splitting import MAX_ARMS
from trivet.server.models.texts import did_you_mean
from trivet.server.repository.layout import TRAFFIC_FILE, ModelFolder

MAX_DIGITS = 19
"""Of a version's number."""
WHOLE = 10_000
"""All requests, in hundredths of a percent."""
NO_LABELS: Mapping[str, int] = MappingProxyType({})
NO_CANDIDATES: Mapping[int, str] = MappingProxyType({})
CANDIDATE = "candidate"
"""The label of those, which no file gives."""
_KEYS = ("labels", "split", "sticky", "rollout", "shadow")
_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,62}")
_SOURCE = re.compile(r"(?:header|cookie):[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}|adapter|prefix|user")


@dataclass(frozen=True, slots=True)
class Share:
    """One arm of a split."""

    name: str
    """As the file has it: a label, or a version's number."""
    version: int
    weight: int
    """In hundredths of a percent."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """How requests for a model that name no version are shared out, and what its versions are
    called."""

    labels: Mapping[str, int] = field(default_factory=lambda: NO_LABELS)
    split: tuple[Share, ...] = ()
    """In the file's order, which decides who gets what: put new arms at the end. Empty: the newest
    version gets all."""
    sticky: tuple[str, ...] = ()
    """Where a request's key is looked for, in order: `header:NAME`, `cookie:NAME`, or `user`, which
    is the field of OpenAI's APIs. A sequence sticks to its id, whatever stands here."""
    rollout: Mapping[str, Any] | None = None
    """How versions are rolled out, as it is written; None: not by this file."""
    shadow: Shadow | None = None
    """Who is asked beside."""

    candidates: Mapping[int, str] = field(default_factory=lambda: NO_CANDIDATES)
    """Versions that have not passed their gate, and why: they get no requests but those that name
    them, and no label but `candidate`."""

    def with_candidates(self, candidates: Mapping[int, str]) -> Self:
        """The same with these."""
        return replace(self, candidates=MappingProxyType(dict(candidates)))

    @property
    def versions(self) -> frozenset[int]:
        """Those that it names."""
        shadow = None if self.shadow is None else self.shadow.version_in(self.labels)
        shadows = () if shadow is None else (shadow,)
        shares = (share.version for share in self.split)
        return frozenset((*self.labels.values(), *shares, *shadows))

    def among(self, chosen: Iterable[int]) -> tuple[int, ...]:
        """The versions that serve where the policy chooses these, ascending: what requests are sent
        to does so, whatever the policy says."""
        return tuple(sorted({*chosen, *self.versions}))


EVEN = Traffic()
"""Of a model without the file: the newest version gets all."""


def given_in(headers: Mapping[str, str], source: str) -> str | None:
    """What headers, or metadata, have at a place that `Traffic.sticky` names; None: nothing."""
    kind, _, name = source.partition(":")
    if kind == "header":
        return headers.get(name)
    if kind != "cookie":
        return None
    for part in headers.get("cookie", "").split(";"):
        key, _, given = part.strip().partition("=")
        if key == name:
            return given
    return None


def no_version(text: str) -> InvalidRequest:
    """The refusal of what is no version's number, and no label where there are any."""
    return InvalidRequest(
        f"failed to get model version from specified version string '{text[:64]}': a version is a "
        f"positive decimal number of at most {MAX_DIGITS} digits without a leading zero"
    )


def is_label(text: str) -> bool:
    """Whether a version may be called so."""
    return _LABEL.fullmatch(text) is not None


def read_traffic(folder: ModelFolder) -> Traffic:
    """What a model's folder says. Raises InvalidConfig, UnreadableFiles."""
    if not folder.traffic:
        return EVEN
    try:
        text = (folder.path / TRAFFIC_FILE).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"{TRAFFIC_FILE} is not UTF-8 text") from error
    except FileNotFoundError:
        return EVEN  # It went since; the next look at the folder finds that.
    except OSError as error:
        raise UnreadableFiles(f"{TRAFFIC_FILE} cannot be read: {error.strerror}") from error
    traffic = parse_traffic(text)
    gone = sorted(traffic.versions - folder.versions.keys())
    if gone:
        there = ", ".join(map(str, sorted(folder.versions)))
        raise InvalidConfig(
            f"{TRAFFIC_FILE} names version {gone[0]}, which is not in the folder; it has {there}"
        )
    return traffic


def parse_traffic(text: str) -> Traffic:
    """What a file says. Raises InvalidConfig."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfig(f"{TRAFFIC_FILE} is no TOML: {error}") from error
    for key in document:
        if key not in _KEYS:
            near = did_you_mean(key, _KEYS)
            raise InvalidConfig(f"{TRAFFIC_FILE}: it has no key '{key[:64]}'{near or _known()}")
    if "split" in document and "rollout" in document:
        raise InvalidConfig(
            f"{TRAFFIC_FILE}: [split] and [rollout] both say who gets which version; keep one"
        )
    return parse_document(document)


def parse_document(document: Mapping[str, Any]) -> Traffic:
    """The same, once its keys are known. Raises InvalidConfig."""
    labels = _labels(_table(document, "labels"))
    rollout = _table(document, "rollout") if "rollout" in document else None
    shadow = _shadow(_table(document, "shadow"), labels) if "shadow" in document else None
    split = _split(_table(document, "split"), labels)
    return Traffic(labels, split, _sticky(document), rollout, shadow)


def _shadow(table: Mapping[str, Any], labels: Mapping[str, int]) -> Shadow:
    try:
        return parse_shadow(table, labels)
    except InvalidConfig as error:
        raise InvalidConfig(f"{TRAFFIC_FILE}: {error.message}") from None


def _shown(given: object) -> str:
    return repr(given)[:64]


def _known() -> str:
    return f"; its keys are {', '.join(_KEYS)}"


def _table(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    table = document.get(key, {})
    if not isinstance(table, dict):
        raise InvalidConfig(
            f"{TRAFFIC_FILE}: '{key}' is to be a table, [{key}], of names and numbers"
        )
    return table


def _labels(table: Mapping[str, Any]) -> Mapping[str, int]:
    for label, version in table.items():
        if not is_label(label):
            raise InvalidConfig(
                f"{TRAFFIC_FILE}: '{label[:64]}' is no label: it begins with a letter and has at "
                "most 63 of A-Z a-z 0-9 . _ -"
            )
        if label == CANDIDATE:
            raise InvalidConfig(
                f"{TRAFFIC_FILE}: '{CANDIDATE}' is what a version is called that has not passed "
                "its evaluation; choose another label"
            )
        if type(version) is not int or version < 1:
            raise InvalidConfig(
                f"{TRAFFIC_FILE}: label '{label}' is to be the number of a version, got "
                f"{_shown(version)}"
            )
    return MappingProxyType(dict(table))


def _split(table: Mapping[str, Any], labels: Mapping[str, int]) -> tuple[Share, ...]:
    if len(table) > MAX_ARMS:
        raise InvalidConfig(
            f"{TRAFFIC_FILE}: [split] has {len(table)} arms; at most {MAX_ARMS} are allowed"
        )
    shares = tuple(
        Share(name, _arm(name, labels), _weight(name, given)) for name, given in table.items()
    )
    versions = [share.version for share in shares]
    for share in shares:
        if versions.count(share.version) > 1:
            raise InvalidConfig(
                f"{TRAFFIC_FILE}: [split] has version {share.version} twice; add the two up"
            )
    total = sum(share.weight for share in shares)
    if shares and total != WHOLE:
        raise InvalidConfig(
            f"{TRAFFIC_FILE}: the percentages of [split] sum to {total / 100:g}; make them 100"
        )
    return shares


def _arm(name: str, labels: Mapping[str, int]) -> int:
    if name in labels:
        return labels[name]
    if name.isascii() and name.isdigit() and not name.startswith("0"):
        return int(name)
    known = ", ".join(labels) or "none"
    raise InvalidConfig(
        f"{TRAFFIC_FILE}: split.{name[:64]} is neither a label of [labels] ({known}) nor a "
        f"version's number{did_you_mean(name, labels)}"
    )


def _weight(name: str, given: object) -> int:
    if isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given <= 100:
        weight = round(given * 100)
        if abs(weight - given * 100) < 1e-6:
            return weight
    raise InvalidConfig(
        f"{TRAFFIC_FILE}: split.{name} is to be a percentage from 0 to 100 with at most two "
        f"decimals, got {_shown(given)}"
    )


def _sticky(document: Mapping[str, Any]) -> tuple[str, ...]:
    sources = document.get("sticky", [])
    if not isinstance(sources, list):
        raise InvalidConfig(f"{TRAFFIC_FILE}: 'sticky' is to be a list, got {_shown(sources)}")
    for source in sources:
        if not isinstance(source, str) or not _SOURCE.fullmatch(source):
            raise InvalidConfig(
                f"{TRAFFIC_FILE}: sticky has {_shown(source)}; a request's key is taken from "
                "'header:NAME' (over gRPC its metadata), 'cookie:NAME', 'user', 'prefix' or "
                "'adapter'"
            )
    return tuple(each.lower() if each.startswith("header:") else each for each in sources)

"""The keys file: one TOML table per key, with a hash instead of the key itself."""

import hashlib
import re
import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trivet.backends.api import InvalidConfig
from trivet.server.auth.limits import NO_LIMITS, Limits
from trivet.server.auth.scopes import GRANTABLE, Scope

PREFIX = "trivet-"
SECRET_BYTES = 32
MAX_SECRET_CHARACTERS = 512
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_LIMITS = tuple(each.name for each in fields(Limits))
_FIELDS = ("name", "hash", "scopes", "tenant", "models", "expires", *_LIMITS)


@dataclass(frozen=True, slots=True)
class Key:
    """One key, as the file says."""

    name: str
    digest: bytes
    scopes: frozenset[Scope]
    tenant: str = ""
    """Keys of one tenant share what is kept of answers and prompts; by default the key's name."""
    models: tuple[str, ...] | None = None
    """Patterns such as "team-*" of the models it may ask; None: all."""
    expires_at_s: float | None = None
    """Wall clock, for it is a date."""
    limits: Limits = NO_LIMITS


def new_secret() -> str:
    """A key to hand out: 256 random bits."""
    return PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def digest_of(secret: str) -> bytes:
    """What is kept of a key. A fast hash is enough for 256 random bits: nobody can try them all."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).digest()


def read_keys(path: Path) -> dict[str, Key]:
    """The keys of a file by name. Raises InvalidConfig with the place of a fault."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"the keys file '{path}' cannot be read: {error}") from error
    return parse_keys(text, str(path))


def parse_keys(text: str, place: str) -> dict[str, Key]:
    """The keys of a file's text."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfig(f"{place}: {error}") from None
    tables = document.pop("keys", [])
    if document or not isinstance(tables, list):
        names = ", ".join(sorted(document)) or "keys"
        raise InvalidConfig(f"{place}: '{names}' is not known; the file holds [[keys]] tables")
    keys: dict[str, Key] = {}
    for number, table in enumerate(tables, 1):
        key = _key(table, f"{place}, key {number}")
        if key.name in keys or key.digest in {other.digest for other in keys.values()}:
            raise InvalidConfig(f"{place}, key {number}: its name or hash is there twice")
        keys[key.name] = key
    return keys


def _key(table: object, place: str) -> Key:
    if not isinstance(table, dict):
        raise InvalidConfig(f"{place}: it must be a table, [[keys]]")
    name, digest = table.get("name"), table.get("hash")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidConfig(f"{place}: 'name' must be 1 to 64 letters, digits or ._@-")
    place = f"{place} ('{name}')"
    unknown = sorted(table.keys() - set(_FIELDS))
    if unknown:
        raise InvalidConfig(f"{place}: '{unknown[0]}' is not known; {', '.join(_FIELDS)} are")
    found = _HASH.fullmatch(digest) if isinstance(digest, str) else None
    if found is None:
        raise InvalidConfig(
            f"{place}: 'hash' must be 'sha256:' and 64 hexadecimal digits, as `trivet keys create` "
            "writes it; a key itself does not belong here"
        )
    return Key(
        name,
        bytes.fromhex(found[1]),
        _scopes(table.get("scopes"), place),
        _tenant(table.get("tenant", name), place),
        _models(table.get("models"), place),
        _expiry(table.get("expires"), place),
        _limits(table, place),
    )


def _scopes(given: object, place: str) -> frozenset[Scope]:
    known = [scope.value for scope in GRANTABLE]
    texts = given if isinstance(given, list) else []
    if not texts or any(text not in known for text in texts):
        raise InvalidConfig(f"{place}: 'scopes' must be a list of some of {', '.join(known)}")
    return frozenset(Scope(text) for text in texts)


def _tenant(given: object, place: str) -> str:
    if not isinstance(given, str) or not _NAME.fullmatch(given):
        raise InvalidConfig(f"{place}: 'tenant' must be 1 to 64 letters, digits or ._@-")
    return given


def _models(given: object, place: str) -> tuple[str, ...] | None:
    if given is None:
        return None
    if not isinstance(given, list) or not all(isinstance(each, str) and each for each in given):
        raise InvalidConfig(f"{place}: 'models' must be a list of names or patterns like 'team-*'")
    return tuple(given)


def _expiry(given: object, place: str) -> float | None:
    if given is None:
        return None
    if not isinstance(given, datetime):
        raise InvalidConfig(f"{place}: 'expires' must be a time like 2030-01-31T00:00:00Z")
    return (given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp()


def _limits(table: Mapping[str, Any], place: str) -> Limits:
    given = {name: table[name] for name in _LIMITS if name in table}
    for name, value in given.items():
        kinds = (int, float) if name in ("requests_per_second", "cost_per_day") else (int,)
        if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < 1e15:
            kind = "number" if float in kinds else "whole number"
            raise InvalidConfig(
                f"{place}: '{name}' must be a {kind} above 0; leave it out for none"
            )
    if "requests_burst" in given and "requests_per_second" not in given:
        raise InvalidConfig(f"{place}: 'requests_burst' needs 'requests_per_second'")
    return Limits(**given)

"""Which cache the server's options ask for."""

from collections.abc import Mapping, Sequence

from trivet.backends.api import InvalidConfig, LoadFailed
from trivet.server.cache.entry import Cache
from trivet.server.cache.local import LocalCache

KINDS = ("local", "redis")
REDIS_VARIABLES = {
    "TRITONCACHE_REDIS_USERNAME": "user",
    "TRITONCACHE_REDIS_PASSWORD": "password",
}
"""Triton's way to keep credentials off the command line."""


def read_cache_config(
    given: Sequence[str], byte_size: int, environment: Mapping[str, str]
) -> tuple[str, dict[str, str]]:
    """The kind of cache, empty for none, and its options: from `--cache-config KIND,KEY=VALUE`,
    `--response-cache-byte-size` and the environment. Raises InvalidConfig."""
    kinds: dict[str, dict[str, str]] = {}
    for text in given:
        kind, comma, setting = text.partition(",")
        name, equals, value = setting.partition("=")
        if kind not in KINDS or bool(comma) != bool(equals) or bool(comma) != bool(name):
            raise InvalidConfig(
                f"--cache-config {text}: give local,size=BYTES or redis,KEY=VALUE with the keys "
                "host, port, user, password and db"
            )
        kinds.setdefault(kind, {}).update({name: value} if name else {})
    if byte_size:
        kinds.setdefault("local", {}).setdefault("size", str(byte_size))
    if len(kinds) > 1:
        raise InvalidConfig("--cache-config names both local and redis; choose one of them")
    for kind, options in kinds.items():
        if kind == "redis":
            for variable, name in REDIS_VARIABLES.items():
                if variable in environment:
                    options.setdefault(name, environment[variable])
        return kind, options
    return "", {}


def open_cache(kind: str, options: dict[str, str]) -> Cache | None:
    """The cache; None for an empty kind. Raises InvalidConfig, and LoadFailed without `redis`."""
    if kind == "local":
        unknown = options.keys() - {"size"}
        size = options.get("size", "")
        if unknown or not size.isdigit() or int(size) < 1:
            raise InvalidConfig(
                f"--cache-config local needs size=BYTES, a number from 1, and nothing else; got "
                f"{options}"
            )
        return LocalCache(int(size))
    return _open_redis(options) if kind else None


def _open_redis(options: dict[str, str]) -> Cache:
    try:
        from trivet.server.cache.redis_cache import RedisCache
    except ModuleNotFoundError:
        raise LoadFailed(
            "--cache-config redis needs the package 'redis', which is not installed: "
            "pip install trivet[redis]"
        ) from None
    return RedisCache(options)

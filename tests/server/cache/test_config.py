"""The options of the response cache, and what wrong ones say."""

import pytest

from trivet.backends.api import InvalidConfig
from trivet.server.cache.config import open_cache, read_cache_config
from trivet.server.cache.local import LocalCache


def test_options_of_one_cache_are_put_together() -> None:
    given = ["redis,host=here", "redis,port=1", "redis,user=me"]
    environment = {"TRITONCACHE_REDIS_USERNAME": "other", "TRITONCACHE_REDIS_PASSWORD": "secret"}
    options = {"host": "here", "port": "1", "user": "me", "password": "secret"}
    assert read_cache_config(given, 0, environment) == ("redis", options)


def test_the_older_flag_means_a_local_cache() -> None:
    assert read_cache_config([], 100, {}) == ("local", {"size": "100"})
    assert isinstance(open_cache("local", {"size": "100"}), LocalCache)


def test_without_options_there_is_none() -> None:
    assert open_cache(*read_cache_config([], 0, {})) is None


@pytest.mark.parametrize(
    "given", ["disk,size=1", "local,size", "local,=1", "local,", "", "local size=1"]
)
def test_what_is_no_option_is_named(given: str) -> None:
    with pytest.raises(InvalidConfig, match="--cache-config"):
        read_cache_config([given], 0, {})


def test_two_caches_are_one_too_many() -> None:
    with pytest.raises(InvalidConfig, match="choose one"):
        read_cache_config(["redis,host=a"], 100, {})


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("local", {}),
        ("local", {"size": "0"}),
        ("local", {"size": "1", "colour": "red"}),
        ("redis", {"port": "six"}),
        ("redis", {"colour": "red"}),
    ],
)
def test_wrong_values_are_named(kind: str, options: dict[str, str]) -> None:
    with pytest.raises(InvalidConfig, match="--cache-config"):
        open_cache(kind, options)

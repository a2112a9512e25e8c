"""Changes of the log setting: what is known, of which type, within which bounds."""

import pytest

from trivet.backends.api import InvalidRequest, Unsupported
from trivet.server.logs.setting import LogSetting


def test_a_change_leaves_the_rest_as_it_was() -> None:
    setting = LogSetting("/var/log/x", verbose_level=2).changed({"log_info": False})
    assert setting == LogSetting("/var/log/x", info=False, verbose_level=2)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("log_info", 1, "'log_info' must be true or false, got 1"),
        ("log_error", None, "'log_error' must be true or false, got None"),
        ("log_verbose_level", True, "from 0 to 2147483647, got True"),
        ("log_verbose_level", -1, "from 0 to 2147483647, got -1"),
        ("log_verbose_level", "high", "from 0 to 2147483647, got 'high'"),
        ("log_format", ["default"], "one of default, ISO8601, json, got \\['default'\\]"),
        ("level", 1, "unknown log setting 'level'"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: object, text: str) -> None:
    with pytest.raises(InvalidRequest, match=text):
        LogSetting().changed({name: value})


def test_the_file_is_not_the_network_s_to_choose() -> None:
    with pytest.raises(Unsupported, match="log file location"):
        LogSetting().changed({"log_info": False, "log_file": ""})

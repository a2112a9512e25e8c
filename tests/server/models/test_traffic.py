"""traffic.toml: what it may say, and what is said of what it may not."""

import pytest

from trivet.backends.api import InvalidConfig
from trivet.server.models.traffic import EVEN, Share, Traffic, given_in, parse_traffic

WHOLE = """
sticky = ["header:X-User", "cookie:session", "user"]
[labels]
stable = 3
canary = 4
[split]
stable = 99.5
4 = 0.5
"""


def test_a_whole_one() -> None:
    assert parse_traffic(WHOLE) == Traffic(
        {"stable": 3, "canary": 4},
        (Share("stable", 3, 9950), Share("4", 4, 50)),
        ("header:x-user", "cookie:session", "user"),
    )
    assert parse_traffic(WHOLE).versions == {3, 4}


def test_an_empty_one_changes_nothing() -> None:
    assert parse_traffic("") == EVEN


WRONG = {
    "no TOML": ("[labels", "is no TOML: "),
    "a key": ("[label]\na = 1", "no key 'label'; did you mean 'labels'?"),
    "another key": ("weights = 1", "no key 'weights'; its keys are labels, split, sticky"),
    "no table": ("labels = 3", "'labels' is to be a table, [labels], of names and numbers"),
    "a number as label": ("[labels]\n3 = 3", "'3' is no label: it begins with a letter"),
    "a version as text": ('[labels]\nstable = "3"', "'stable' is to be the number of a version"),
    "version 0": ("[labels]\nstable = 0", "number of a version, got 0"),
    "true": ("[labels]\nstable = true", "number of a version, got True"),
    "99 %": ("[split]\n1 = 98\n2 = 1", "[split] sum to 99; make them 100"),
    "thousandths": ("[split]\n1 = 99.999\n2 = 0.001", "at most two decimals, got 99.999"),
    "negative": ("[split]\n1 = 101\n2 = -1", "a percentage from 0 to 100"),
    "a text": ('[split]\n1 = "all"', "a percentage from 0 to 100 with at most two decimals"),
    "no label": (
        "[labels]\nstable = 1\n[split]\nstabel = 100",
        "split.stabel is neither a label of [labels] (stable) nor a version's number; did you mean "
        "'stable'?",
    ),
    "twice": ("[labels]\na = 1\n[split]\na = 50\n1 = 50", "[split] has version 1 twice"),
    "nine": ("[split]\n" + "\n".join(f"{i} = 10" for i in range(1, 10)), "9 arms; at most 8"),
    "a source": ('sticky = ["query:user"]', "a request's key is taken from 'header:NAME'"),
    "no list": ('sticky = "user"', "'sticky' is to be a list"),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named(text: str, said: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        parse_traffic(text)

    assert refused.value.message.startswith("traffic.toml")
    assert said in refused.value.message


def test_where_keys_come_from() -> None:
    headers = {"x-user": "anna", "cookie": "a=1; session=s-7;b"}

    assert given_in(headers, "header:x-user") == "anna"
    assert given_in(headers, "cookie:session") == "s-7"
    assert [given_in(headers, each) for each in ("header:x", "cookie:c", "user")] == [None] * 3

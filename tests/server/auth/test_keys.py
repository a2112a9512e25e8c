"""The keys file: what it says, its faults, how it is followed, and the command that writes it."""

import contextlib
import logging
import statistics
import time
from pathlib import Path

import pytest
from auth_site import Clock, Keys
from click.testing import CliRunner

from trivet.backends.api import InvalidConfig
from trivet.server.auth.errors import RateLimited, Unauthenticated
from trivet.server.auth.keyring import Keyring, secret_in
from trivet.server.auth.keys import digest_of, parse_keys, read_keys
from trivet.server.auth.limits import Limits
from trivet.server.auth.scopes import Scope
from trivet.server.cli import main

HASH = "sha256:" + "0" * 64
KEY = f'[[keys]]\nname = "a"\nhash = "{HASH}"\nscopes = ["infer"]\n'


def test_a_key_has_what_its_table_says() -> None:
    more = (
        'models = ["resnet", "team-*"]\nexpires = 2030-01-31T00:00:00Z\n'
        "requests_per_second = 1.5\ntokens_per_minute = 60\n"
    )
    key = parse_keys(KEY + more, "keys.toml")["a"]
    assert key.scopes == {Scope.INFER}
    assert key.models == ("resnet", "team-*")
    assert key.expires_at_s == 1896048000.0
    assert key.limits == Limits(requests_per_second=1.5, tokens_per_minute=60)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[[keys", "keys.toml: Expected"),
        ("secret = 1", "'secret' is not known; the file holds [[keys]] tables"),
        ("keys = 3", "'keys' is not known"),
        ("keys = [3]", "keys.toml, key 1: it must be a table"),
        ("[[keys]]", "'name' must be 1 to 64 letters"),
        ('[[keys]]\nname = "a b"', "'name' must be 1 to 64 letters"),
        ('[[keys]]\nname = "a"', "keys.toml, key 1 ('a'): 'hash' must be 'sha256:'"),
        ('[[keys]]\nname = "a"\nhash = "trivet-abc"', "a key itself does not belong here"),
        (f'[[keys]]\nname = "a"\nhash = "{HASH}"', "'scopes' must be a list of some of infer"),
        (f'[[keys]]\nname = "a"\nhash = "{HASH}"\nscopes = []', "'scopes' must be a list"),
        (f'[[keys]]\nname = "a"\nhash = "{HASH}"\nscopes = ["any"]', "infer, admin, metrics"),
        (f'[[keys]]\nname = "a"\nhash = "{HASH}"\nscopes = "infer"', "'scopes' must be a list"),
        (KEY + "model = 1", "'model' is not known; name, hash, scopes"),
        (KEY + 'models = "a"', "'models' must be a list of names or patterns"),
        (KEY + 'expires = "tomorrow"', "'expires' must be a time like"),
        (KEY + "requests_per_day = 1.5", "'requests_per_day' must be a whole number above 0"),
        (KEY + "requests_per_second = 0", "'requests_per_second' must be a number above 0"),
        (KEY + "requests_per_second = nan", "'requests_per_second' must be a number above 0"),
        (KEY + "tokens_per_minute = true", "'tokens_per_minute' must be a whole number"),
        (KEY + "requests_burst = 3", "'requests_burst' needs 'requests_per_second'"),
        (KEY + KEY, "keys.toml, key 2: its name or hash is there twice"),
    ],
)
def test_a_fault_of_the_file_is_told_with_its_place(text: str, fault: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        parse_keys(text, "keys.toml")
    assert fault in caught.value.message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"gone.toml' cannot be read"):
        Keyring(tmp_path / "gone.toml")


@pytest.mark.parametrize(
    ("authorization", "api_key", "found"),
    [
        ("Bearer abc", None, "abc"),
        ("bearer  abc ", "other", "abc"),
        (None, "abc", "abc"),
        ("Basic dXNlcjpwYXNz", "abc", "abc"),
        ("Basic dXNlcjpwYXNz", None, None),
        ("abc", None, None),
        ("Bearer", None, None),
        (None, None, None),
    ],
)
def test_a_key_comes_in_either_header(
    authorization: str | None, api_key: str | None, found: str | None
) -> None:
    assert secret_in(authorization, api_key) == found


@pytest.mark.parametrize("secret", [None, "", "x", "x" * 100_000, "\udcff\udc80", "trivet-"])
def test_what_is_no_key_is_turned_away(keys: Keys, secret: str | None) -> None:
    with pytest.raises(Unauthenticated):
        Keyring(keys.path).admit(secret, Scope.INFER)


def test_one_character_less_or_more_is_another_key(keys: Keys) -> None:
    keyring, secret = Keyring(keys.path), keys.secrets["infer"]
    for changed in (secret[:-1], secret + "A", secret.swapcase(), f" {secret}", secret + "\0"):
        with pytest.raises(Unauthenticated):
            keyring.admit(changed, Scope.INFER)
    assert keyring.admit(secret, Scope.INFER).key.name == "infer"


def test_the_hash_is_not_the_key(keys: Keys) -> None:
    digest = read_keys(keys.path)["infer"].digest
    for secret in (digest.hex(), f"sha256:{digest.hex()}"):
        with pytest.raises(Unauthenticated):
            Keyring(keys.path).admit(secret, Scope.INFER)


def test_an_expired_key_is_turned_away(keys: Keys) -> None:
    clock = Clock(1896048000.0 - 1)
    secret = keys.add("short", "infer", more="expires = 2030-01-31T00:00:00Z")
    keyring = Keyring(keys.path, wall_clock=clock)
    keyring.admit(secret, Scope.INFER)
    clock.now_s += 1
    with pytest.raises(Unauthenticated, match="'short' has expired"):
        keyring.admit(secret, Scope.INFER)


def test_reading_the_file_again_adds_and_takes_keys_and_forgets_no_use(keys: Keys) -> None:
    limited = keys.add("limited", "infer", more="requests_per_day = 2")
    keyring = Keyring(keys.path)
    keyring.admit(limited, Scope.INFER)
    keyring.admit(limited, Scope.INFER)
    gone = keys.secrets["infer"]
    text = keys.path.read_text()
    keys.path.write_text(text[text.index("[[keys]]", 10) :])
    new = keys.add("new", "infer")

    keyring.reload()

    assert keyring.admit(new, Scope.INFER).key.name == "new"
    with pytest.raises(Unauthenticated):
        keyring.admit(gone, Scope.INFER)
    with pytest.raises(RateLimited):
        keyring.admit(limited, Scope.INFER)


def test_a_broken_file_leaves_the_old_keys_in_use_and_is_told(
    keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    keyring = Keyring(keys.path)
    keys.path.write_text("[[keys]]\nname = ")
    with caplog.at_level(logging.ERROR):
        keyring.reload()
    keys.path.unlink()
    with caplog.at_level(logging.ERROR):
        keyring.reload()
    keyring.admit(keys.secrets["infer"], Scope.INFER)
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert "the keys read before stay in use" in caplog.text


def test_the_command_prints_a_key_that_works_and_keeps_its_hash_only(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    flags = ["keys", f"--file={path}", "create"]
    first = CliRunner().invoke(main, [*flags, "one", "--scope=infer", "--scope=metrics"])
    more = ["--model=team-*", "--requests-per-second=2", "--expires=2030-01-31"]
    second = CliRunner().invoke(main, [*flags, "two", "--scope=admin", *more])

    keyring = Keyring(path)
    one, two = first.stdout.strip(), second.stdout.strip()
    assert keyring.admit(one, Scope.METRICS).key.name == "one"
    key = keyring.admit(two, Scope.ADMIN).key
    assert (key.models, key.limits.requests_per_second) == (("team-*",), 2.0)
    assert key.expires_at_s == 1896048000.0
    assert len(one) > 40
    assert one not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    listed = CliRunner().invoke(main, ["keys", f"--file={path}", "list"]).output
    assert "infer, metrics" in listed
    assert "team-*" in listed


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("one",), "Missing option '--scope'"),
        (("one", "--scope=all"), "'all' is not one of"),
        (("a b", "--scope=infer"), "'name' must be 1 to 64 letters"),
        (("infer", "--scope=infer"), "its name or hash is there twice"),
        (("one", "--scope=infer", "--requests-per-day=0"), "must be a whole number above 0"),
    ],
)
def test_the_command_explains_what_is_wrong_and_changes_nothing(
    keys: Keys, flags: tuple[str, ...], text: str
) -> None:
    before = keys.path.read_text()
    result = CliRunner().invoke(main, ["keys", f"--file={keys.path}", "create", *flags])
    assert result.exit_code != 0
    assert text in result.output
    assert keys.path.read_text() == before


@pytest.mark.rows("O44")
def test_only_hashes_are_ever_compared(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a comparison's time tells is about a hash, of which nobody finds the key; and those
    of a found key are compared in constant time."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(left: bytes, right: bytes) -> bool:
        compared.append((left, right))
        return left == right

    monkeypatch.setattr("trivet.server.auth.keyring.hmac.compare_digest", compare)
    secret = keys.secrets["infer"]
    ring = Keyring(keys.path)
    ring.allowed(secret, Scope.INFER)
    assert compared == [(digest_of(secret), digest_of(secret))]
    for size in range(len(secret)):
        with pytest.raises(Unauthenticated):
            ring.allowed(secret[:size] + "*" * (len(secret) - size), Scope.INFER)
    assert len(compared) == 1, "a wrong key is not even found"


@pytest.mark.rows("O44")
def test_how_much_of_a_key_is_right_takes_no_time_to_tell(keys: Keys) -> None:
    secret = keys.secrets["infer"]
    ring = Keyring(keys.path)
    guesses = [secret[:size].ljust(len(secret), "*") for size in (0, 8, len(secret) - 1)]
    times: list[list[int]] = [[] for _ in guesses]
    for _ in range(10_000):
        for number, guess in enumerate(guesses):  # in turn, so that all meet the same machine
            started = time.perf_counter_ns()
            with contextlib.suppress(Unauthenticated):
                ring.allowed(guess, Scope.INFER)
            times[number].append(time.perf_counter_ns() - started)
    medians = [statistics.median(each) for each in times]
    assert max(medians) < 1.25 * min(medians), medians


@pytest.mark.more_of("O41")
@pytest.mark.parametrize(
    "token",
    [
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.",  # a token of another system: {"alg": "none"}
        "eyJhbGciOiJub25lIn0." + "A" * 2**20 + ".",
        "x" * 2**20,
    ],
    ids=["alg none", "1 MB token", "1 MB"],
)
def test_tokens_of_other_systems_are_unknown_keys_and_not_logged(
    keys: Keys, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Unauthenticated) as caught:
        Keyring(keys.path).allowed(token, Scope.INFER)
    assert len(caught.value.message) < 200
    assert len(caplog.text) < 1024

"""`hf://` against a hub on this machine: what is listed and fetched, versions, refusals."""

import math
from collections.abc import Iterator
from pathlib import Path

import fake_hub
import pytest
from fake_hub import TOKEN, FakeHub, Refusal
from huggingface_hub import constants

from trivet.server.remote.addresses import open_source
from trivet.server.remote.hub import HubSource
from trivet.server.remote.hub_address import read_address
from trivet.server.remote.source import Changed, RemoteError, Source, Unreachable
from trivet.server.settings import Settings

FILES = {
    "config.json": b'{"architectures": ["BertModel"]}',
    "model.safetensors": bytes(range(256)) * 40,
    "README.md": b"# name",
}


@pytest.fixture(scope="module")
def running() -> Iterator[FakeHub]:
    with fake_hub.open_hub() as hub:
        yield hub


@pytest.fixture
def hub(running: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeHub:
    """One that holds org/name and knows nothing of other tests."""
    endpoints = running.endpoint, running.storage
    vars(running).update(vars(FakeHub()))
    running.endpoint, running.storage = endpoints
    running.repo("org/name").push(FILES)
    monkeypatch.setattr(constants, "ENDPOINT", running.endpoint)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return running


def opened(address: str = "hf://org/name") -> HubSource:
    source = open_source(address, Settings())
    assert isinstance(source, HubSource)
    return source


def fetched(source: Source, path: str, into: Path, at: int = 0) -> bytes:
    list(source.fetch(path, source.listing()[path], into, at))
    return into.read_bytes()


def refused(address: str = "hf://org/name") -> str:
    with pytest.raises(RemoteError) as caught:
        opened(address).listing()
    return str(caught.value)


# -- what is there -----------------------------------------------------------------------------


def test_a_repository_is_one_model_of_which_the_hub_has_version_1(
    hub: FakeHub, tmp_path: Path
) -> None:
    source = opened()
    listing = source.listing()
    assert set(listing) == {"name/1/config.json", "name/1/model.safetensors"}
    for path in listing:
        name = path.removeprefix("name/1/")
        assert fetched(source, path, tmp_path / name) == FILES[name]
    assert listing["name/1/model.safetensors"].sha256 != ""


def test_a_mirror_that_lists_no_sizes_is_asked_for_each_file(hub: FakeHub, tmp_path: Path) -> None:
    hub.lists_sizes = False
    source = opened()
    sizes = {path: stamp.size for path, stamp in source.listing().items()}
    assert sizes == {f"name/1/{path}": len(FILES[path]) for path in FILES if path != "README.md"}
    for path in sizes:
        name = path.removeprefix("name/1/")
        assert fetched(source, path, tmp_path / name) == FILES[name]
    hub.asked.clear()
    source.listing()
    assert len(hub.asked) == 1


def test_storage_gets_the_file_asked_for_and_never_the_token(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    fetched(opened(), "name/1/model.safetensors", tmp_path / "x")
    assert {asked.authorization for asked in hub.asked} == {f"Bearer {TOKEN}"}
    assert [asked.authorization for asked in hub.at_storage] == [""]


def test_the_token_may_lie_in_the_file_of_hf_auth_login(hub: FakeHub) -> None:
    Path(constants.HF_TOKEN_PATH).write_text(f"{TOKEN}\n")
    hub.repo("org/name").is_private = True
    opened().listing()
    assert hub.asked[0].authorization == f"Bearer {TOKEN}"


def test_nothing_is_asked_before_somebody_wants_to_know(hub: FakeHub) -> None:
    opened()
    assert hub.asked == []


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("ignores_ranges", [False, True])
@pytest.mark.rows("R36")
def test_a_broken_connection_is_resumed(
    hub: FakeHub, tmp_path: Path, name: str, ignores_ranges: bool
) -> None:
    source, into = opened(), tmp_path / "x"
    stamp = source.listing()[f"name/1/{name}"]
    hub.breaks_after = 9
    with pytest.raises(Unreachable):
        list(source.fetch(f"name/1/{name}", stamp, into, 0))
    begun = into.stat().st_size
    assert begun <= 9
    hub.ignores_ranges = ignores_ranges
    list(source.fetch(f"name/1/{name}", stamp, into, begun))
    assert into.read_bytes() == FILES[name]


def test_a_refusal_of_the_storage_is_not_taken_for_the_hubs(hub: FakeHub, tmp_path: Path) -> None:
    source = opened()
    path = "name/1/model.safetensors"
    stamp = source.listing()[path]
    hub.storage_status = 403
    with pytest.raises(Unreachable, match=r"the storage of .* answers 403 now"):
        list(source.fetch(path, stamp, tmp_path / "x", 0))
    hub.storage_status = 200
    assert fetched(source, path, tmp_path / "x") == FILES["model.safetensors"]


def test_what_is_there_already_is_not_asked_for(hub: FakeHub, tmp_path: Path) -> None:
    source, into = opened(), tmp_path / "x"
    into.write_bytes(FILES["config.json"])
    stamp = source.listing()["name/1/config.json"]
    num_asked = len(hub.asked)
    assert list(source.fetch("name/1/config.json", stamp, into, stamp.size)) == []
    assert len(hub.asked) == num_asked


@pytest.mark.rows("R36")
def test_a_size_other_than_the_listed_one_is_told(hub: FakeHub, tmp_path: Path) -> None:
    hub.lies_about_size = 5
    source = opened()
    for path, stamp in source.listing().items():
        into = tmp_path / path.rpartition("/")[2]
        with pytest.raises(RemoteError, match=r"sends '.*' with \d+ bytes and lists it with \d+"):
            list(source.fetch(path, stamp, into, 0))
        assert into.read_bytes() == b""


def test_paths_that_lead_elsewhere_are_not_listed(hub: FakeHub) -> None:
    hub.extra_paths = ("../../.bashrc.json", "/etc/passwd.json", "a/../../model.safetensors")
    assert set(opened().listing()) == {"name/1/config.json", "name/1/model.safetensors"}


# -- versions ----------------------------------------------------------------------------------


def test_a_branch_that_moves_on_is_the_next_version(hub: FakeHub, tmp_path: Path) -> None:
    source = opened()
    before = source.listing()
    hub.repo("org/name").push({**FILES, "config.json": b"{}"})
    after = source.listing()
    assert set(after) == {"name/2/config.json", "name/2/model.safetensors"}
    assert after["name/2/model.safetensors"] == before["name/1/model.safetensors"]
    assert fetched(source, "name/2/config.json", tmp_path / "x") == b"{}"
    with pytest.raises(Changed):
        list(source.fetch("name/1/config.json", before["name/1/config.json"], tmp_path / "y", 0))


def test_the_version_that_serves_is_listed_until_it_does_not(hub: FakeHub, tmp_path: Path) -> None:
    source = opened()
    source.listing()
    source.keep(frozenset({1}))
    for content in (b"broken", b"broken, too"):
        hub.repo("org/name").push({**FILES, "config.json": content})
        after = source.listing()
    assert {path.split("/")[1] for path in after} == {"1", "3"}
    assert fetched(source, "name/1/config.json", tmp_path / "x") == FILES["config.json"]
    assert fetched(source, "name/3/config.json", tmp_path / "y") == b"broken, too"
    source.keep(frozenset({3}))
    assert {path.split("/")[1] for path in source.listing()} == {"3"}


def test_a_commit_that_changes_no_file_of_the_model_is_no_version(hub: FakeHub) -> None:
    source = opened()
    before = source.listing()
    hub.repo("org/name").push({**FILES, "README.md": b"other"})
    assert source.listing() == before


def test_a_commit_in_the_address_never_changes_and_is_asked_for_once(hub: FakeHub) -> None:
    sha = hub.repo("org/name").branches["main"].sha
    source = opened(f"hf://org/name@{sha}")
    before = source.listing()
    hub.repo("org/name").push({"model.safetensors": b"x"})
    hub.is_gone = True
    assert source.listing() == before
    assert len(hub.asked) == 1


def test_a_revision_may_be_a_branch_a_tag_or_a_pull_request(hub: FakeHub, tmp_path: Path) -> None:
    hub.repo("org/name").push({"model.safetensors": b"of the request"}, "refs/pr/3")
    source = opened("hf://org/name@refs/pr/3")
    assert fetched(source, "name/1/model.safetensors", tmp_path / "x") == b"of the request"
    assert "/api/models/org/name/revision/refs%2Fpr%2F3" in hub.asked[0].path


def test_one_file_of_many_is_named_by_the_address(hub: FakeHub, tmp_path: Path) -> None:
    hub.repo("org/x-GGUF").push({"x-Q4.gguf": b"GGUF4", "x-Q8.gguf": b"GGUF8"})
    assert "name the file in the address, hf://org/x-GGUF/FILE" in refused("hf://org/x-GGUF")
    for address in ("hf://org/x-GGUF/x-Q8.gguf", "hf://org/x-GGUF?file=x-Q8.gguf"):
        source = opened(address)
        assert fetched(source, "x-GGUF/1/x-Q8.gguf", tmp_path / address[-9:-5]) == b"GGUF8"
        (tmp_path / address[-9:-5]).unlink()


# -- refusals ----------------------------------------------------------------------------------


@pytest.mark.rows("R36")
def test_a_gated_model_names_the_page_with_its_terms(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repo("org/name").is_gated = True
    source = opened()
    path, stamp = next(iter(source.listing().items()))
    for token, text in (("", "set HF_TOKEN"), (TOKEN, "the account whose token is given")):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(RemoteError) as caught:
            list(source.fetch(path, stamp, tmp_path / "x", 0))
        assert f"accept its terms at {hub.endpoint}/org/name" in str(caught.value)
        assert text in str(caught.value)
        assert TOKEN not in str(caught.value)


def test_what_is_private_or_not_there_says_so(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repo("org/secret").push(FILES)
    hub.repo("org/secret").is_private = True
    for name in ("org/secret", "org/nothing"):
        assert "no token is given: check the name, or set HF_TOKEN" in refused(f"hf://{name}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert opened("hf://org/secret").listing()
    assert "the token may not read it" in refused("hf://org/nothing")
    assert "has no revision 'v9'" in refused("hf://org/name@v9")


@pytest.mark.parametrize(
    ("refusal", "error", "text"),
    [
        (Refusal(429, {"retry-after": "17"}), Unreachable, "asks to come back in 17 s"),
        (Refusal(429, {"ratelimit": '"api";r=0;t=55'}), Unreachable, "come back in 55 s"),
        (Refusal(429), Unreachable, "asks to come back later"),
        (Refusal(503), Unreachable, "answers 503"),
        (
            Refusal(401, {"x-error-message": "Invalid credentials in Authorization header"}),
            RemoteError,
            "does not know the token that was sent",
        ),
        (
            Refusal(403, {"x-error-message": "Access to this resource is disabled."}),
            RemoteError,
            "disabled by the hub",
        ),
        (Refusal(403), RemoteError, "does not let the token read 'org/name'"),
        (Refusal(418), RemoteError, "answers 418"),
        (Refusal(200, body=b"<html>sign in</html>"), RemoteError, "no hub's description"),
        (Refusal(200, body=b'{"sha": "main", "siblings": []}'), RemoteError, "no hub's"),
        (Refusal(200, body=b"[]"), RemoteError, "no hub's"),
    ],
)
@pytest.mark.rows("R36")
def test_each_refusal_is_a_sentence(
    hub: FakeHub, refusal: Refusal, error: type[RemoteError], text: str
) -> None:
    hub.refusals["/api/models/"] = refusal
    with pytest.raises(error) as caught:
        opened().listing()
    assert text in str(caught.value)
    assert type(caught.value) is error


def test_a_hub_that_does_not_answer_may_later(hub: FakeHub) -> None:
    source = opened()
    hub.is_gone = True
    with pytest.raises(Unreachable, match="does not answer for 'org/name'"):
        source.listing()
    hub.is_gone = False
    assert source.listing()


def test_a_hub_that_asks_for_patience_is_left_alone(hub: FakeHub) -> None:
    source = opened()
    hub.refusals["/api/models/"] = Refusal(429, {"retry-after": "300"})
    for _ in range(3):
        with pytest.raises(Unreachable, match="come back in 300 s") as caught:
            source.listing()
        assert 290 < caught.value.wait_s <= 300
    assert len(hub.asked) == 1


def test_offline_says_how_to_serve_without_a_network(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Unreachable, match="hf download org/name --local-dir name") as caught:
        opened().listing()
    assert caught.value.wait_s == math.inf
    assert hub.asked == []


# -- addresses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "repo", "revision", "file"),
    [
        ("hf://org/name", "org/name", "main", ""),
        ("hf://models/org/name", "org/name", "main", ""),
        ("hf://org/name@v1.0", "org/name", "v1.0", ""),
        ("hf://org/name@refs/pr/5/a/b.gguf", "org/name", "refs/pr/5", "a/b.gguf"),
        ("hf://org/name/a@b.gguf", "org/name", "main", "a@b.gguf"),
        ("hf://org/name@v1?file=b.gguf", "org/name", "v1", "b.gguf"),
        ("hf://org/name@feature%2Fx/b.gguf", "org/name", "feature/x", "b.gguf"),
        ("hf://org/hf_name", "org/hf_name", "main", ""),
    ],
)
def test_addresses_have_the_hubs_own_form(text: str, repo: str, revision: str, file: str) -> None:
    found = read_address(text)
    assert (found.repo, found.revision, found.file) == (repo, revision, file)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hf://name", "it does not have the form"),
        ("hf://org/../etc", "it does not have the form"),
        ("hf://datasets/org/name", "'datasets' are no models"),
        ("hf://org/name?revision=v1", r"only \?file=FILE"),
        (f"hf://{TOKEN}@org/name", "give the token as HF_TOKEN"),
        ("hf://user:secret@org/name", "give the token as HF_TOKEN"),
    ],
)
def test_other_addresses_are_refused_without_repeating_a_secret(text: str, why: str) -> None:
    with pytest.raises(RemoteError, match=why) as caught:
        read_address(text)
    assert TOKEN not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_name_that_a_scan_would_overlook_is_changed() -> None:
    assert read_address("hf://org/name.tmp").model == "name-tmp"

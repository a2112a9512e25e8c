"""What lies in a repository: what counts, what is ignored and what is refused."""

import itertools
import os
from pathlib import Path

import pytest

from trivet.server.repository.scan import RepositoryUnreadableError, Snapshot, scan


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def add(root: Path, name: str, text: str = "x") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def problem(root: Path, name: str = "m") -> str:
    found = scan([root])
    assert name not in found.models
    return found.problems[name]


def test_versions_and_config_files_are_told_apart(root: Path) -> None:
    for name in ("m/config.pbtxt", "m/labels.txt", "m/warmup/a", "m/1/model.onnx", "m/20/d/e"):
        add(root, name)
    folder = scan([root]).models["m"]
    assert [stamp[0] for stamp in folder.config] == ["config.pbtxt", "labels.txt", "warmup/a"]
    assert {v: [s[0] for s in stamps] for v, stamps in folder.versions.items()} == {
        1: ["model.onnx"],
        20: ["d/e"],
    }


@pytest.mark.parametrize("name", ["01", "1a", "-1", "9" * 20, "0"])
def test_folders_that_are_no_versions_are_ignored(root: Path, name: str) -> None:
    add(root, f"m/{name}/model.onnx")
    assert scan([root]).models["m"].versions == {}


@pytest.mark.parametrize(
    "name", [".hidden", "model.onnx.swp", "model.onnx~", "x.tmp", "x.part", "__pycache__/y"]
)
def test_editors_and_copy_tools_files_do_not_count(root: Path, name: str) -> None:
    add(root, "m/1/model.onnx")
    before = scan([root])
    add(root, f"m/1/{name}")
    add(root, f"m/{name}")
    assert scan([root]) == before


def test_a_version_folder_before_its_files_is_seen_as_empty(root: Path) -> None:
    (root / "m" / "1").mkdir(parents=True)
    assert scan([root]).models["m"].versions == {1: ()}


@pytest.mark.parametrize("name", ["ä", "a:b", " a", "a ", "a\tb", "x" * 256])
def test_folders_with_other_names_are_no_models(root: Path, name: str) -> None:
    try:
        (root / name).mkdir()
    except OSError:
        pytest.skip("the file system does not take the name")
    assert scan([root]) == Snapshot({}, {})


def test_files_beside_the_models_are_ignored(root: Path) -> None:
    add(root, "README.md")
    assert scan([root]) == Snapshot({}, {})


def test_every_change_changes_the_fingerprint(root: Path) -> None:
    path = add(root, "m/1/model.onnx", "one")
    seen = [scan([root])]
    path.write_text("two and more")
    seen.append(scan([root]))
    os.utime(path, ns=(1, 1))
    seen.append(scan([root]))
    add(root, "other", "two and more").rename(path)
    seen.append(scan([root]))
    assert all(a.models["m"] != b.models["m"] for a, b in itertools.pairwise(seen))


def test_the_same_model_in_two_repositories_is_refused(root: Path, tmp_path: Path) -> None:
    second = tmp_path / "more"
    for each in (root, second):
        add(each, "m/1/model.onnx")
    found = scan([root, second])
    assert "two repositories" in found.problems["m"]
    assert not found.models


@pytest.mark.parametrize("name", ["a b", "a,b", "a+b", "a@b", "Qwen2.5-0.5B", "-", "+1, @2"])
def test_names_as_people_give_them_are_served(root: Path, name: str) -> None:
    add(root, f"{name}/1/model.onnx")
    assert list(scan([root]).models) == [name]


def test_a_repository_that_is_given_twice_is_one(root: Path, tmp_path: Path) -> None:
    add(root, "m/1/model.onnx")
    (tmp_path / "link").symlink_to(root)
    found = scan([root, root, root / ".." / "models", tmp_path / "link"])
    assert list(found.models) == ["m"]
    assert not found.problems


def test_a_link_that_leaves_the_repository_is_refused(root: Path, tmp_path: Path) -> None:
    secret = add(tmp_path, "secret")
    add(root, "m/1/model.onnx")
    (root / "m" / "1" / "data").symlink_to(secret)
    assert "points outside the model repository" in problem(root)


def test_a_link_inside_the_repository_is_followed(root: Path) -> None:
    target = add(root, "shared/1/model.onnx")
    (root / "m" / "1").mkdir(parents=True)
    (root / "m" / "1" / "model.onnx").symlink_to(target)
    assert scan([root]).models["m"].versions[1][0][1] == 1


def test_links_in_a_circle_are_refused(root: Path) -> None:
    add(root, "m/1/model.onnx")
    (root / "m" / "1" / "loop").symlink_to(root / "m" / "1")
    assert "contains it" in problem(root)
    (root / "m" / "1" / "loop").unlink()
    (root / "m" / "1" / "self").symlink_to(root / "m" / "1" / "self")
    assert "circle" in problem(root)


def test_a_dangling_link_is_noticed_but_is_no_danger(root: Path) -> None:
    (root / "m" / "1").mkdir(parents=True)
    (root / "m" / "1" / "model.onnx").symlink_to(root / "m" / "nothing")
    assert scan([root]).models["m"].versions == {1: (("model.onnx", -1, 0, 0),)}


def test_a_pipe_is_refused_without_reading_it(root: Path) -> None:
    add(root, "m/1/model.onnx")
    os.mkfifo(root / "m" / "1" / "pipe")
    assert "'pipe' is not a regular file" in problem(root)


def test_a_repository_that_is_gone_is_no_empty_one(root: Path) -> None:
    with pytest.raises(RepositoryUnreadableError, match="cannot be read"):
        scan([root / "nothing"])


@pytest.mark.more_of("R13")
def test_too_many_files_are_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trivet.server.repository.scan.MAX_FILES", 10)
    for number in range(11):
        add(root, f"m/1/{number}")
    assert "more than 10 files" in problem(root)

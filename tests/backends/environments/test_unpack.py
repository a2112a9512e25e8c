"""Archives with environments: nothing of them lands outside of their folder, whatever they say."""

import os
import tarfile
from pathlib import Path

import pytest
from made_environments import Member, archive_of, make_venv, member, pack

from trivet.backends.environments.unpack import BadArchive, Unpacker

FILE = member("lib/a", content=b"kept")
OUT: dict[str, tuple[list[Member], str]] = {
    "up": ([member("../evil", content=b"x")], "'../evil' leads out of it"),
    "up within": ([member("lib/../../evil", content=b"x")], "leads out of it"),
    "absolute": ([member("/tmp/evil", content=b"x")], "leads out of it"),
    "link out": ([member("l", tarfile.SYMTYPE, "../secret")], "'l' is a link that leads out"),
    "link to an absolute path": ([member("l", tarfile.SYMTYPE, "/etc")], "leads out of it"),
    "deep link out": ([member("a/b/l", tarfile.SYMTYPE, "../../../x")], "leads out of it"),
    "python elsewhere": ([member("lib/python", tarfile.SYMTYPE, "/usr")], "leads out of it"),
    "through a link": (
        [FILE, member("l", tarfile.SYMTYPE, "lib"), member("l/b", content=b"x")],
        "'l/b' lies behind a link",
    ),
    "hard link out": ([member("h", tarfile.LNKTYPE, "../secret")], "leads out of it"),
    "hard link to an absolute path": ([member("h", tarfile.LNKTYPE, "/etc/passwd")], "leads out"),
    "hard link to a link": (
        [member("l", tarfile.SYMTYPE, "lib"), member("h", tarfile.LNKTYPE, "l")],
        "which is no file before it",
    ),
    "hard link to nothing": ([member("h", tarfile.LNKTYPE, "no")], "which is no file before it"),
    "device": ([member("zero", tarfile.CHRTYPE)], "'zero' is no file, folder or link"),
    "pipe": ([member("pipe", tarfile.FIFOTYPE)], "'pipe' is no file, folder or link"),
    "file as folder": ([FILE, member("lib/a/b", content=b"x")], "as a file and as a folder"),
    "folder as link": ([FILE, member("lib", tarfile.SYMTYPE, "x")], "as a file and as a folder"),
    "long name": ([member("n" * 300, content=b"x")], "is too long a name"),
    "deep": ([member("d/" * 300 + "f", content=b"x")], "more than 200 folders deep"),
    "too much": ([member("big", content=bytes(2000))], "more than 1000 bytes"),
    "nothing": ([], "it is an empty archive"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "out" / "folder"
    folder.mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    return folder


@pytest.mark.parametrize("case", OUT)
def test_what_would_leave_the_folder_is_refused(tmp_path: Path, folder: Path, case: str) -> None:
    members, text = OUT[case]
    archive = archive_of(tmp_path / "env.tar.gz", *members)
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(BadArchive) as raised:
        Unpacker(folder, max_bytes=1000).unpack(archive)

    assert text in str(raised.value)
    assert [path for path in sorted(tmp_path.rglob("*")) if folder not in path.parents] == before
    assert (tmp_path / "secret").read_text() == "secret"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "it is no tar archive"),
        (b"<html>not found</html>" * 100, "it is no tar archive"),
        (b"PK\x03\x04" + bytes(600), "it is no tar archive"),
        (b"\x1f\x8b\x08" + b"x" * 600, "it is"),
    ],
)
def test_what_is_no_archive_says_so(
    tmp_path: Path, folder: Path, content: bytes, text: str
) -> None:
    archive = tmp_path / "env.tar.gz"
    archive.write_bytes(content)

    with pytest.raises(BadArchive, match=text):
        Unpacker(folder, max_bytes=1000).unpack(archive)


def test_an_archive_that_was_cut_off_says_so(tmp_path: Path, folder: Path) -> None:
    content = os.urandom(100_000)
    archive = archive_of(tmp_path / "env.tar.gz", member("a", content=content))
    archive.write_bytes(archive.read_bytes()[:60_000])

    with pytest.raises(BadArchive, match="it is damaged"):
        Unpacker(folder, max_bytes=1 << 20).unpack(archive)


def test_links_within_lead_where_they_did(tmp_path: Path, folder: Path) -> None:
    archive = archive_of(
        tmp_path / "env.tar.gz",
        FILE,
        member("lib64", tarfile.SYMTYPE, "lib"),
        member("share/x/up", tarfile.SYMTYPE, "../../lib/a"),
        member("share/x/round", tarfile.SYMTYPE, "y/../../../lib/a"),
        member("hard", tarfile.LNKTYPE, "./lib/a"),
    )

    Unpacker(folder, max_bytes=1000).unpack(archive)

    for name in ("lib64/a", "share/x/up", "share/x/round", "hard"):
        assert (folder / name).read_text() == "kept"


def test_links_that_each_stay_within_do_not_add_up_to_one_that_leaves(
    tmp_path: Path, folder: Path
) -> None:
    """`d` is the folder itself; a link that goes up from it is read as it is written."""
    archive = archive_of(
        tmp_path / "env.tar.gz",
        FILE,
        member("p/q/d", tarfile.SYMTYPE, "../.."),
        member("e", tarfile.SYMTYPE, "p/q/d/../../lib"),
    )

    Unpacker(folder, max_bytes=1000).unpack(archive)

    assert (folder / "p/q/d").resolve() == folder
    assert (folder / "e").resolve().is_relative_to(folder)


def test_of_a_file_that_is_given_twice_the_last_counts(tmp_path: Path, folder: Path) -> None:
    archive = archive_of(
        tmp_path / "env.tar.gz",
        member("a", tarfile.SYMTYPE, "b"),
        member("b", content=b"1"),
        member("a", content=b"2"),
    )

    Unpacker(folder, max_bytes=1000).unpack(archive)

    assert ((folder / "a").read_text(), (folder / "b").read_text()) == ("2", "1")


def test_files_have_their_times(tmp_path: Path, folder: Path) -> None:
    """Python would compile everything again at each start where it may not write."""
    at, before = member("a", content=b"1"), member("b", content=b"2")
    at[0].mtime, before[0].mtime = 1_700_000_000, 1 << 70

    Unpacker(folder, max_bytes=1000).unpack(archive_of(tmp_path / "env.tar.gz", at, before))

    assert (folder / "a").stat().st_mtime == 1_700_000_000
    assert (folder / "b").read_text() == "2"


def test_files_may_be_executed_but_not_as_somebody_else(tmp_path: Path, folder: Path) -> None:
    info, content = member("run", content=b"#!")
    info.mode = 0o6777
    archive = archive_of(tmp_path / "env.tar.gz", (info, content))

    Unpacker(folder, max_bytes=1000).unpack(archive)

    mode = (folder / "run").stat().st_mode & 0o7777
    assert mode & 0o7022 == 0
    assert mode & 0o700 == 0o700


@pytest.mark.parametrize("top", ["", "env"])
def test_the_interpreter_of_a_virtual_environment_is_left_out(
    tmp_path: Path, folder: Path, top: str
) -> None:
    archive = pack(make_venv(tmp_path / "made"), tmp_path / "env.tar.gz", top)

    Unpacker(folder, max_bytes=1 << 20).unpack(archive)

    unpacked = folder / top
    assert (unpacked / "pyvenv.cfg").is_file()
    assert [path for path in unpacked.rglob("python*") if path.is_symlink() and path.exists()] == []

"""What a requirements.txt may say, and what of it the server's environment lacks."""

from pathlib import Path

import numpy as np
import pytest

from trivet.backends.environments.requirements import MAX_BYTES, Requirements, pip_line


def read(path: Path, text: str | bytes) -> Requirements:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return Requirements.read(path, "m")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "requirements.txt"


def test_comments_continuations_markers_and_hashes_are_understood(file: Path) -> None:
    found = read(
        file,
        "\ufeff# what it needs\n\nnumpy>=1.0  # arrays\nfrob[x]==1.0 \\\n  --hash=sha256:ab12 \\\n"
        "  --hash=sha256:cd34\nold ; python_version < '3'\n",
    )

    assert found.text.splitlines() == [
        "numpy>=1.0",
        "frob[x]==1.0 --hash=sha256:ab12 --hash=sha256:cd34",
        'old; python_version < "3"',
    ]
    assert list(map(str, found.unmet())) == ["'frob[x]==1.0' (not installed)"]


def test_nothing_is_lacking_where_all_is_installed(file: Path) -> None:
    assert read(file, f"numpy=={np.__version__}\nNumPy>1\npytest_asyncio\n").unmet() == []


def test_what_is_missing_or_of_another_version_is_named_with_the_command(file: Path) -> None:
    lacking = read(file, "numpy<1\nno-such-package>=2,<3\nclick\n").unmet()

    assert [str(each) for each in lacking] == [
        f"'numpy<1' ({np.__version__} is installed)",
        "'no-such-package<3,>=2' (not installed)",
    ]
    assert pip_line(lacking) == "pip install 'numpy<1' 'no-such-package<3,>=2'"


def test_what_an_extra_brings_counts(file: Path) -> None:
    assert read(file, "tritonclient[grpc,http]\n").unmet() == []
    assert [each.found for each in read(file, "pytest-xdist[setproctitle]\n").unmet()] == [
        "not installed"
    ]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("--index-url https://me:swordfish@host/simple", "'--index-url' is not taken"),
        ("--extra-index-url=https://host", "'--extra-index-url' is not taken"),
        ("--find-links /tmp", "'--find-links' is not taken"),
        ("--trusted-host host", "where packages come from is for whoever runs the server"),
        ("-e .", "the option '-e' is not taken"),
        ("-r more.txt", "write the lines of that file into it, too"),
        ("-c pins.txt", "write the lines of that file into it, too"),
        ("frob @ https://me:swordfish@host/frob.whl", "package 'frob' is named by a URL"),
        ("https://me:swordfish@host/frob.whl", "packages by URL or path are not taken"),
        ("git+https://host/frob", "packages by URL or path are not taken"),
        ("./frob.whl", "packages by URL or path are not taken"),
        ("frob.tar.gz", "packages by URL or path are not taken"),
        ("numpy --global-option=x", "the option '--global-option' is"),
        ("numpy==", "'numpy==' is no requirement"),
        ("numpy 2", "'numpy 2' is no requirement"),
    ],
)
def test_where_packages_come_from_is_not_for_the_folder_to_say(
    file: Path, line: str, text: str
) -> None:
    found = read(file, f"click\n{line}\npytest\n")

    assert found.refusal.startswith("model 'm': its requirements.txt, line 2: ")
    assert text in found.refusal
    assert "swordfish" not in found.refusal + found.text
    assert {"click", "pytest"} <= {each.name for each in found.listed}


@pytest.mark.parametrize(
    ("content", "text"), [(b"\xff\xfe\x00", "is not UTF-8"), (b"#" * (MAX_BYTES + 1), "has more")]
)
def test_what_is_no_such_file_says_so(file: Path, content: bytes, text: str) -> None:
    found = read(file, content)

    assert text in found.refusal
    assert found.unmet() == []

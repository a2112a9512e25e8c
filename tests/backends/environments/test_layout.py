"""Which environments a model's process can run in, and what is said of the others."""

import sys
from pathlib import Path

import pytest
from made_environments import PYTHON, VERSION, add_package, make_conda, make_venv, site_packages

from trivet.backends.api import InvalidConfig
from trivet.backends.environments.layout import Layout

OTHER = f"3.{sys.version_info.minor + 1}"
WHAT = "model 'm': 'env.tar.gz'"


def refusal(folder: Path) -> str:
    with pytest.raises(InvalidConfig) as raised:
        Layout.of(folder, WHAT).environment(WHAT)
    assert raised.value.message.startswith(WHAT)
    return raised.value.message


def test_a_virtual_environment_is_one(tmp_path: Path) -> None:
    found = Layout.of(make_venv(tmp_path / "env"), WHAT).environment(WHAT)

    assert (found.folder, found.has_libraries) == (tmp_path / "env", False)
    assert found.python.resolve() == PYTHON.resolve()


def test_conda_s_is_one_with_libraries_of_its_own(tmp_path: Path) -> None:
    found = Layout.of(make_conda(tmp_path / "env"), WHAT).environment(WHAT)

    assert found.has_libraries
    assert found.python == tmp_path / "env/bin/python"


def test_it_may_be_the_only_folder(tmp_path: Path) -> None:
    make_venv(tmp_path / "env")

    assert Layout.of(tmp_path, WHAT).environment(WHAT).folder == tmp_path / "env"


@pytest.mark.parametrize("folders", [[], ["a"], ["a", "b"], ["bin"], ["lib/python3.11"]])
def test_what_is_none_is_refused_with_what_one_has(tmp_path: Path, folders: list[str]) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)

    assert "holds no environment, with bin/python and one lib/python3.N" in refusal(tmp_path)


def test_a_python_that_is_too_old_is_named(tmp_path: Path) -> None:
    text = refusal(make_conda(tmp_path / "env", "3.10"))

    assert "is of Python 3.10; a model's process needs Python 3.11 or newer" in text
    assert f"the server's is {VERSION}" in text


def test_another_python_must_bring_what_is_compiled(tmp_path: Path) -> None:
    environment = make_conda(tmp_path / "env", OTHER)
    add_package(environment, "orjson", "", OTHER)
    text = refusal(environment)
    assert f"is of Python {OTHER} and has no numpy, ml_dtypes, and those of the server" in text
    assert "pip install numpy ml-dtypes in it" in text

    for name in ("numpy", "ml_dtypes"):
        add_package(environment, name, "", OTHER)

    assert Layout.of(environment, WHAT).environment(WHAT).has_libraries


def test_a_virtual_environment_whose_python_is_not_here_says_so(tmp_path: Path) -> None:
    text = refusal(make_venv(tmp_path / "env", home=tmp_path / "nowhere"))

    assert "whose interpreter is not on this machine: 'bin/python' is a link to nothing" in text


def test_one_from_elsewhere_is_given_the_server_s_python(tmp_path: Path) -> None:
    environment = make_venv(tmp_path / "env", home=tmp_path / "nowhere")

    Layout.of(environment, WHAT).settle(WHAT)

    found = Layout.of(environment, WHAT).environment(WHAT)
    assert found.python.resolve() == PYTHON.resolve()
    assert f"home = {PYTHON.parent}\n" in (environment / "pyvenv.cfg").read_text()


def test_one_of_another_python_cannot_be(tmp_path: Path) -> None:
    environment = make_venv(tmp_path / "env", OTHER)

    with pytest.raises(InvalidConfig, match=f"a virtual environment of Python {OTHER}, which"):
        Layout.of(environment, WHAT).settle(WHAT)


def test_two_pythons_are_none(tmp_path: Path) -> None:
    environment = make_conda(tmp_path / "env")
    site_packages(environment, OTHER)

    assert "one lib/python3.N" in refusal(environment)


def test_a_config_that_is_a_link_to_the_interpreter_does_not_overwrite_the_server_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = tmp_path / "server" / "bin" / f"python{VERSION}"
    server.parent.mkdir(parents=True)
    server.write_text("the server's")
    monkeypatch.setattr("sys.base_prefix", str(tmp_path / "server"))
    folder = make_venv(tmp_path / "made")
    (folder / "bin" / "python3").unlink()
    (folder / "pyvenv.cfg").rename(folder / "bin" / "python3")
    (folder / "pyvenv.cfg").symlink_to("bin/python3")

    Layout.of(folder, "it").settle("it")

    assert server.read_text() == "the server's"
    assert (folder / "pyvenv.cfg").read_text().startswith(f"home = {server.parent}\n")

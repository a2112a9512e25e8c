"""Models with environments of their own in a real server: installed, unpacked, refused."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from made_environments import add_package, archive_of, make_venv, make_wheel, member, pack
from patience import patience
from serving import start_server

CODE = """
import {package}
import numpy as np
import triton_python_backend_utils as pb_utils
class TritonPythonModel:
    def execute(self, requests):
        value = np.array([{package}.VALUE], np.int32)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", value)]) for _ in requests]
"""
CONFIG = """
backend: "python"
input {{ name: "IN" data_type: TYPE_INT32 dims: [ 1 ] }}
output {{ name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] }}
{more}
"""
PACKED = 'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "%s" } }'
ARCHIVE = PACKED % "$$TRITON_MODEL_DIRECTORY/env.tar.gz"
ASKED = {"inputs": [{"name": "IN", "datatype": "INT32", "shape": [1], "data": [0]}]}


class Site:
    """A server, its repository, and the packages that can be installed."""

    def __init__(self, root: Path) -> None:
        self.root, self.repository = root, root / "models"
        self.wheels = root / "wheels"
        self.repository.mkdir(parents=True)
        make_wheel(self.wheels, "knob_of_tests", "2.0", "")
        make_wheel(self.wheels, "frob_of_tests", "1.0", "VALUE = 7", requires="knob_of_tests>=2")
        flags = ("--allow-install=frob", "--allow-install=never", "--exit-on-error=false")
        self.server = start_server(self.repository, *flags, f"--environment-cache={root / 'cache'}")

    def put(self, name: str, package: str, more: str = "", **files: str) -> Path:
        """Appears at once."""
        made = self.root / "new"
        (made / "1").mkdir(parents=True)
        (made / "1" / "model.py").write_text(CODE.format(package=package))
        (made / "config.pbtxt").write_text(CONFIG.format(more=more))
        for file, text in files.items():
            (made / file.replace("_txt", ".txt")).write_text(text)
        return made.rename(self.repository / name)

    def reason(self, name: str) -> str:
        """Why the model does not load, once that is known."""
        reasons: list[str] = []

        def is_told() -> bool:
            rows = [row for (key, _), row in self.server.index().items() if key == name]
            reasons[:] = [row.get("reason", "") for row in rows]
            return any(reasons)

        self.server.wait_until(is_told, f"{name} refused")
        return reasons[0]

    def answer(self, name: str) -> int:
        self.server.wait_until(
            lambda: self.server.get(f"/v2/models/{name}/ready")[0] == 200, f"{name} ready"
        )
        answered = self.server.post(f"/v2/models/{name}/infer", ASKED)
        return int(answered["outputs"][0]["data"][0])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("environments")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(root / "wheels"))
        patch.setenv("PATH", "/usr/bin:/bin")
        site = Site(root)
    yield site
    site.server.end()


def test_requirements_are_installed_where_the_operator_has_named_the_model(site: Site) -> None:
    site.put("frob", "frob_of_tests", requirements_txt="frob-of-tests\n")
    site.put("other", "numpy.version", requirements_txt="frob-of-tests>=1\n")

    text = site.reason("other")
    assert "'frob-of-tests>=1' (not installed)" in text
    assert "--allow-install other," in text
    assert site.answer("frob") == 7
    assert any("Successfully installed" in line for line in site.server.output)


def test_what_cannot_be_found_is_told_in_pip_s_words(site: Site) -> None:
    site.put("never", "frob_of_tests", requirements_txt="no-such-package-anywhere==3\n")

    text = site.reason("never")

    assert "No matching distribution found for no-such-package-anywhere==3" in text
    assert str(site.root) not in text


def test_an_archive_is_unpacked_once(site: Site) -> None:
    environment = make_venv(site.root / "env")
    add_package(environment, "only_packed", "VALUE = 9")
    pack(environment, site.root / "env.tar.gz")
    for name in ("packed", "packed_too"):
        folder = site.put(name, "only_packed", PACKED % (site.root / "env.tar.gz"))
        assert folder.is_dir()

    assert [site.answer(name) for name in ("packed", "packed_too")] == [9, 9]
    assert len(list((site.root / "cache").glob("archive-*.*/"))) == 1


def test_an_installation_in_progress_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text("#!/bin/sh\necho installing as $$\nexec sleep 3600\n")
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", f"{uv.parent}:/usr/bin:/bin")
    slow = Site(tmp_path / "slow")
    try:
        slow.put("frob", "frob_of_tests", requirements_txt="frob-of-tests\n")
        begun: list[str] = []

        def has_begun() -> bool:
            begun[:] = [line for line in slow.server.output if "installing as" in line]
            return bool(begun)

        slow.server.wait_until(has_begun, "installing")
        installer = psutil.Process(int(begun[0].split()[-1]))
        assert slow.server.get("/v2/models/frob/ready")[0] != 200

        assert slow.server.stop() == 0

        psutil.wait_procs([installer], timeout=patience())
        assert not installer.is_running()
        assert list((slow.root / "cache").glob("packages-*/")) == []
    finally:
        slow.server.end()


@pytest.mark.more_of("R32")
def test_a_wrong_archive_costs_its_model_alone(site: Site) -> None:
    archive = archive_of(site.root / "up.tar.gz", member("../../evil", content=b"x"))
    site.put("wrong", "numpy", PACKED % archive)

    assert "'../../evil' leads out of it" in site.reason("wrong")
    assert list(site.root.rglob("evil")) == []
    assert site.server.get("/v2/health/live")[0] == 200

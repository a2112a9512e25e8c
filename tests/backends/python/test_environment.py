"""Models in an environment of their own: what they can import, and from where."""

import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import network
import numpy as np
import orjson
import pytest
from made_environments import add_package, make_conda, make_venv, pack, site_packages
from python_models import Maker, make_config, make_request, run

import trivet
from trivet.backends.api import (
    Environment,
    Instance,
    InvalidConfig,
    LoadFailed,
    ModelFiles,
    Pickles,
    Placement,
)
from trivet.backends.environments.archive import ArchiveRecipe
from trivet.backends.environments.installing import InstallRecipe
from trivet.backends.python.backend import BACKEND
from trivet.protos import model_config_pb2 as pb

TELLS = """
import importlib
def origin(name):
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        return repr(error)
    return getattr(module, "WHO", None) or module.__file__
class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        import only_there
        config.add_output({"name": only_there.WHO, "data_type": "TYPE_STRING", "dims": [1]})
        return config
    def execute(self, requests):
        told = {name: origin(name) for name in NAMES}
        told |= {key: os.environ.get(key, "") for key in ("PATH", "PYTHONPATH", "CONDA_PREFIX")}
        text = np.array([json.dumps(told)], object)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", text)]) for _ in requests]
"""
SERVERS_ALONE = ("click", "psutil", "pytest", "packaging")


def config_of(path: str, name: str = "m") -> pb.ModelConfig:
    config = make_config("IN:FP32", name=name)
    config.parameters["EXECUTION_ENV_PATH"].string_value = path
    return config


def equipped(files: ModelFiles, config: pb.ModelConfig) -> ModelFiles:
    found = BACKEND.environment(config, files)
    assert isinstance(found, Environment)
    return replace(files, environment=found)


@pytest.fixture
def opened() -> Iterator[list[Instance]]:
    instances: list[Instance] = []
    yield instances
    for each in instances:
        each.close()


def told(
    maker: Maker, opened: list[Instance], environment: Path, *names: str
) -> tuple[pb.ModelConfig, dict[str, str]]:
    """The completed config, and where a model in the environment has modules from."""
    add_package(environment, "only_there", 'WHO = "OUT"')
    config = config_of(str(environment))
    files = equipped(maker.files(f"NAMES = {names!r}\n{TELLS.strip()}\n"), config)
    completed = BACKEND.complete(config, files)
    opened.append(BACKEND.open(completed, files, Placement("m_0_0", "KIND_CPU", 0, 1)))
    answer = run(opened[-1], make_request(IN=np.zeros(1, np.float32))).outputs[0][0]
    found: dict[str, str] = orjson.loads(answer.packed().objects()[0])
    return completed, found


def test_it_has_the_environment_s_packages_and_none_of_the_server_s(
    maker: Maker, opened: list[Instance], tmp_path: Path
) -> None:
    completed, found = told(
        maker, opened, make_venv(tmp_path / "env"), "only_there", "numpy", *SERVERS_ALONE
    )

    assert [each.name for each in completed.output] == ["OUT"], "completed in it, too"
    assert found["only_there"] == "OUT"
    for name in SERVERS_ALONE:
        assert f"No module named '{name}'" in found[name]
    assert found["numpy"] == np.__file__, "it has none, so the server's"
    assert found["PATH"].startswith(f"{tmp_path}/env/bin:")
    assert found["PYTHONPATH"] == ""


def test_the_environment_s_own_numpy_is_the_one(
    maker: Maker, opened: list[Instance], tmp_path: Path
) -> None:
    environment = make_venv(tmp_path / "env")
    packages = site_packages(environment)
    for folder in Path(np.__file__).parents[1].glob("numpy*"):
        (packages / folder.name).symlink_to(folder)

    _, found = told(maker, opened, environment, "numpy", "numpy.linalg")

    assert found["numpy"] == str(packages / "numpy" / "__init__.py")
    assert found["numpy.linalg"] == str(packages / "numpy" / "linalg" / "__init__.py")


def test_its_protobuf_may_be_of_any_version(
    maker: Maker, opened: list[Instance], tmp_path: Path
) -> None:
    environment = make_venv(tmp_path / "env")
    add_package(environment, "google.protobuf", 'WHO = "3.0"')
    add_package(environment, "google.cloud", 'WHO = "cloud"')
    add_package(environment, "trivet", 'WHO = "not the server\'s"')

    _, found = told(maker, opened, environment, "google.protobuf", "google.cloud", "trivet")

    assert found["google.protobuf"] == "3.0"
    assert found["google.cloud"] == "cloud"
    assert found["trivet"] == trivet.__file__, "ours is ours"


def test_without_one_it_has_no_protobuf(
    maker: Maker, opened: list[Instance], tmp_path: Path
) -> None:
    _, found = told(maker, opened, make_venv(tmp_path / "env"), "google.protobuf")

    assert "No module named 'google'" in found["google.protobuf"]


def test_conda_s_libraries_go_first(maker: Maker, opened: list[Instance], tmp_path: Path) -> None:
    _, found = told(maker, opened, make_conda(tmp_path / "env"), "only_there")

    assert found["only_there"] == "OUT"
    assert found["CONDA_PREFIX"] == str(tmp_path / "env")


@pytest.mark.parametrize(
    "path",
    ["$$TRITON_MODEL_DIRECTORY/env.tar.gz", "env.tar.gz", "{folder}/env.tar.gz", "1/../env.tar.gz"],
)
def test_the_archive_is_found_by_each_form_of_its_path(
    maker: Maker, tmp_path: Path, path: str
) -> None:
    files = maker.files("")
    archive = pack(make_venv(tmp_path / "env"), files.model_dir / "env.tar.gz")
    config = config_of(path.format(folder=files.model_dir))

    found = BACKEND.environment(config, files)

    assert isinstance(found, ArchiveRecipe)
    assert found.path == archive
    assert found.key == BACKEND.environment(config, files).key  # type: ignore[union-attr]


def test_another_content_is_another_environment(maker: Maker, tmp_path: Path) -> None:
    files = maker.files("")
    environment = make_venv(tmp_path / "env")
    pack(environment, files.model_dir / "env.tar.gz")
    before = BACKEND.environment(config_of("env.tar.gz"), files)
    add_package(environment, "more", "")
    pack(environment, files.model_dir / "env.tar.gz")

    after = BACKEND.environment(config_of("env.tar.gz"), files)

    assert isinstance(before, ArchiveRecipe)
    assert isinstance(after, ArchiveRecipe)
    assert before.key != after.key


@pytest.mark.parametrize("path", ["/etc", "../other/env.tar.gz", "$$TRITON_MODEL_DIRECTORY/../x"])
def test_a_client_s_config_names_nothing_outside_of_the_model(maker: Maker, path: str) -> None:
    files = replace(maker.files(""), is_clients=True)

    with pytest.raises(InvalidConfig, match="leads out of the model's folder"):
        BACKEND.environment(config_of(path), files)


def test_what_is_not_there_or_is_none_says_so(maker: Maker, tmp_path: Path) -> None:
    files = maker.files("")
    with pytest.raises(InvalidConfig, match=r"'env.tar.gz' is not there; it is an archive"):
        BACKEND.environment(config_of("env.tar.gz"), files)
    with pytest.raises(InvalidConfig, match="holds no environment"):
        BACKEND.environment(config_of(str(tmp_path)), files)


def test_it_needs_a_process(maker: Maker, tmp_path: Path) -> None:
    config = config_of(str(make_venv(tmp_path / "env")))
    config.parameters["isolation"].string_value = "none"

    with pytest.raises(InvalidConfig, match="runs in a process of its own; leave it out"):
        BACKEND.environment(config, maker.files(""))


@pytest.mark.parametrize("place", ["1/requirements.txt", "requirements.txt"])
def test_requirements_that_are_met_change_nothing(maker: Maker, place: str) -> None:
    files = replace(maker.files(""), may_install=True)
    (files.model_dir / place).write_text(f"numpy=={np.__version__}\n")

    assert BACKEND.environment(make_config(name="m"), files) is None


@pytest.mark.parametrize("place", ["1/requirements.txt", "requirements.txt"])
def test_others_are_named_with_both_commands(maker: Maker, place: str) -> None:
    files = maker.files("")
    (files.model_dir / place).write_text("numpy>=1\nno-such-package==2\nclick<1\n")

    with pytest.raises(LoadFailed) as raised:
        BACKEND.environment(make_config(name="m"), files)

    text = raised.value.message
    assert "its requirements.txt asks for what the server's environment does not have: " in text
    assert "'no-such-package==2' (not installed), 'click<1' (" in text
    assert "--allow-install m, " in text
    assert text.endswith("pip install no-such-package==2 'click<1'")
    with pytest.raises(LoadFailed, match="--allow-install m,"):
        BACKEND.check_files(make_config(name="m"), files)


def test_for_what_a_client_has_sent_no_option_is_advised_in_vain(maker: Maker) -> None:
    files = replace(maker.files(""), is_sent=True)
    (files.model_dir / "requirements.txt").write_text("no-such-package==2\n")

    with pytest.raises(LoadFailed) as raised:
        BACKEND.environment(make_config(name="m"), files)

    text = raised.value.message
    assert "--allow-install" not in text
    assert "For a model that a client sends nothing is installed, whatever its name" in text
    assert text.endswith("install it beside the server: pip install no-such-package==2")


def test_the_operator_may_let_them_be_installed(maker: Maker) -> None:
    files = replace(maker.files(""), may_install=True)
    (files.model_dir / "requirements.txt").write_text("no-such-package==2  # one\n")
    config = make_config(name="m")
    config.parameters["install_timeout_s"].string_value = "7"

    found = BACKEND.environment(config, files)

    assert isinstance(found, InstallRecipe)
    assert (found.text, found.work.limit_s) == ("no-such-package==2\n", 7.0)


def test_a_file_that_says_more_than_packages_is_not_installed(
    maker: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    """What it lists by name may be there nevertheless: others than this server do not read it."""
    files, config = maker.files(""), make_config(name="m")
    place = files.model_dir / "requirements.txt"
    place.write_text("--extra-index-url https://host/\nnumpy\n")
    refusal = "line 1: the option '--extra-index-url' is not taken"

    assert BACKEND.environment(config, files) is None
    assert refusal in caplog.text
    with pytest.raises(InvalidConfig, match=refusal):
        BACKEND.environment(config, replace(files, may_install=True))
    place.write_text("--extra-index-url https://host/\nno-such-package\n")
    with pytest.raises(LoadFailed, match=rf"pip install no-such-package \(for the .*{refusal}"):
        BACKEND.environment(config, files)


def test_a_lone_file_has_no_requirements(tmp_path: Path) -> None:
    """What lies beside it in the repository is nobody's."""
    (tmp_path / "m.py").write_text("")
    (tmp_path / "requirements.txt").write_text("no-such-package")
    files = ModelFiles(tmp_path, 1, is_flat=True, lone=("m.py",), given_name="m")

    assert BACKEND.environment(make_config(name="m"), files) is None


@pytest.mark.parametrize("limit", ["0", "-1", "inf", "soon"])
def test_a_limit_that_is_none_is_refused(maker: Maker, limit: str) -> None:
    files = replace(maker.files(""), may_install=True)
    (files.model_dir / "requirements.txt").write_text("no-such-package")
    config = make_config(name="m")
    config.parameters["install_timeout_s"].string_value = limit

    with pytest.raises(InvalidConfig, match="must be a number of seconds"):
        BACKEND.environment(config, files)


def test_the_server_s_own_packages_do_not_come_by_its_variables(
    maker: Maker, opened: list[Instance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = tmp_path / "others"
    (others / "only_servers").mkdir(parents=True)
    (others / "only_servers" / "__init__.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", f"{others}:{os.environ.get('PYTHONPATH', '')}")

    _, found = told(maker, opened, make_venv(tmp_path / "env"), "only_servers")

    assert "No module named 'only_servers'" in found["only_servers"]
    assert sys.prefix not in found["PATH"].split(":")[0]


def test_an_interpreter_that_is_none_says_so(maker: Maker, tmp_path: Path) -> None:
    environment = make_conda(tmp_path / "env")
    (environment / "bin" / "python").write_bytes(b"\x7fELF of another machine")
    config = config_of(str(environment))
    files = equipped(maker.files("class TritonPythonModel:\n def execute(self, r): pass"), config)

    with pytest.raises(LoadFailed, match="cannot be started: Exec format error") as raised:
        BACKEND.open(config, files, Placement("m_0_0", "KIND_CPU", 0, 1))

    assert str(tmp_path) not in raised.value.message


REACHES = """
import socket
class TritonPythonModel:
    def execute(self, requests):
        try:
            socket.create_connection(("127.0.0.1", PORT), timeout=5).close()
            reached = 1
        except OSError:
            reached = 0
        value = np.array([reached], np.int32)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", value)]) for _ in requests]
"""


def test_what_loads_pickles_has_no_network_in_its_environment_either(
    maker: Maker, opened: list[Instance], tmp_path: Path
) -> None:
    if not network.can_be_left():
        pytest.skip("the kernel gives nobody a network namespace")
    config = config_of(str(make_venv(tmp_path / "env")))
    config.output.add(name="OUT", data_type=pb.DataType.TYPE_INT32, dims=[1])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        source = f"PORT = {listener.getsockname()[1]}\n{REACHES.strip()}\n"
        files = replace(equipped(maker.files(source), config), pickles=Pickles.APART)
        opened.append(BACKEND.open(config, files, Placement("m_0_0", "KIND_CPU", 0, 1)))
        answer = run(opened[-1], make_request(IN=np.zeros(1, np.float32))).outputs[0][0]

    assert answer.numpy().tolist() == [0]

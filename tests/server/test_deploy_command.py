"""`trivet deploy ray`: what it writes and what it refuses; tests/cluster deploys."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from trivet.server.cli import main
from trivet.server.ray.group import Group


def deploy(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["deploy", "ray", *arguments])


def test_a_config_file_has_what_the_options_say(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    options = ["--max-replicas=4", "--resource=mig=1", "--flag=--log-verbose=1"]

    done = deploy("my_models", "s3://bucket/models", f"--write-config={file}", *options)

    assert done.exit_code == 0, done.output
    application = json.loads(file.read_text())["applications"][0]
    group = Group.of(application["args"])
    assert group.repository == (str(Path.cwd() / "my_models"), "s3://bucket/models")
    assert (group.max_replicas, group.resources) == (4, {"mig": 1})
    assert group.flags == ("--log-verbose=1",)
    assert application["import_path"] == "trivet.server.ray.application:application"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--resource=mig"], "give NAME=NUMBER"),
        (["--min-replicas=2"], "between min_replicas 2 and max_replicas 1"),
        (["--host=0.0.0.0"], "give the flag --auth-keys-file=FILE"),
    ],
)
def test_what_does_not_fit_is_refused(options: list[str], said: str) -> None:
    done = deploy("my_models", *options)

    assert done.exit_code == 2
    assert said in " ".join(done.output.split())

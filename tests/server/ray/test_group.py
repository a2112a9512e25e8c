"""A group of models is read from an application's arguments, or refused with a sentence."""

from typing import Any

import pytest

from trivet.backends.api import InvalidConfig
from trivet.server.ray.config_file import serve_config
from trivet.server.ray.group import Group

HERE = {"repository": "/models"}


def test_arguments_make_the_group_that_made_them() -> None:
    given = {
        **HERE,
        "name": "chat",
        "gpus": 0.5,
        "max_replicas": 3,
        "resources": {"mig-1g.10gb": 1},
        "flags": ["--log-verbose=1"],
    }
    group = Group.of(given)

    assert Group.of(group.arguments()) == group
    assert group.arguments() == {**given, "repository": ["/models"]}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"max_replica": 2}, "did you mean 'max_replicas'?"),
        ({"repository": []}, "needs 'repository'"),
        ({"repository": [3]}, "'repository' of a group is no list of texts"),
        ({"name": "Chat Models"}, "'Chat Models' cannot be a group's name"),
        ({"name": 7}, "'name' of a group is no text"),
        ({"min_replicas": 3}, "between min_replicas 3 and max_replicas 1"),
        ({"min_replicas": 0, "max_replicas": 0}, "max >= 1"),
        ({"min_replicas": 1.5}, "'min_replicas' of a group is no int: 1.5"),
        ({"cpus": float("nan")}, "'cpus' of a group is no float: nan"),
        ({"queue": 0}, "queue of group 'models' must be more than 0"),
        ({"gpus": 1.5}, "cannot have 1.5 GPUs"),
        ({"resources": {"tpu": "1"}}, "'resources' of a group are no numbers by name"),
        ({"http_port": 70000}, "http_port of group 'models' is no port: 70000"),
        ({"http_port": 8001}, "http_port and grpc_port of group 'models' are both 8001"),
        ({"host": "everywhere"}, "host of group 'models' is no IP address: 'everywhere'"),
        ({"host": "0.0.0.0"}, "give the flag --auth-keys-file=FILE"),
        ({"flags": ["--http-port=9000"]}, "replicas choose their addresses"),
        ({"flags": ["--exit-timeout-secs=9"]}, "is drain_delay_s or longest_request_s here"),
        ({"drain_delay_s": 1}, "a replica has to serve 3 s more"),
    ],
)
def test_what_does_not_fit_together_is_refused_with_a_sentence(
    more: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidConfig) as refused:
        Group.of({**HERE, **more})

    assert said in str(refused.value)


@pytest.mark.parametrize("flag", ["--auth-keys-file=/keys.toml", "--allow-unauthenticated=true"])
def test_other_machines_can_ask_where_that_was_thought_of(flag: str) -> None:
    assert Group.of({**HERE, "host": "0.0.0.0", "flags": [flag]}).is_open


def test_ray_waits_as_long_as_a_replica_may_take_to_end() -> None:
    group = Group.of({**HERE, "drain_delay_s": 6, "longest_request_s": 100})

    assert group.end_s == 111


def test_a_config_file_has_an_application_for_each_group() -> None:
    chat = Group.of({**HERE, "name": "chat", "http_port": 8100, "grpc_port": 8101})
    config = serve_config([Group.of(HERE), chat])

    assert [each["name"] for each in config["applications"]] == ["models", "chat"]
    assert Group.of(config["applications"][1]["args"]) == chat


def test_groups_of_a_file_do_not_want_the_same_ports() -> None:
    with pytest.raises(InvalidConfig, match="two groups have the same http_port: 8000, 8000"):
        serve_config([Group.of(HERE), Group.of({**HERE, "name": "chat"})])

"""A group of models as an application of Ray Serve: what `serve deploy` and KubeRay import."""

from typing import Any

from ray import serve

from trivet.backends.api import InvalidConfig
from trivet.server.ray.group import Group
from trivet.server.ray.replica import Server

_POLICY = "trivet.server.ray.scaling:wanted_replicas"
_AVERAGED_S = 10.0


def application(arguments: dict[str, Any]) -> serve.Application:
    """The application that these arguments (`Group`) describe. Raises ValueError, which
    Serve shows of a config that is wrong."""
    try:
        group = Group.of(arguments)
    except InvalidConfig as error:
        raise ValueError(str(error)) from None
    deployment = serve.deployment(Server).options(**options(group))
    return deployment.bind(group.arguments())


def options(group: Group) -> dict[str, Any]:
    """What Serve is told of the deployment."""
    scaled = group.min_replicas != group.max_replicas
    return {
        "name": group.name,
        **({"autoscaling_config": _scaling(group)} if scaled else {}),
        **({} if scaled else {"num_replicas": group.max_replicas}),
        "ray_actor_options": {
            "num_cpus": group.cpus,
            "num_gpus": group.gpus,
            "resources": dict(group.resources),
        },
        "health_check_period_s": 2,
        "health_check_timeout_s": 10,
        "graceful_shutdown_timeout_s": group.end_s + 5,
        "graceful_shutdown_wait_loop_s": 1,
    }


def _scaling(group: Group) -> dict[str, Any]:
    return {
        "min_replicas": group.min_replicas,
        "initial_replicas": max(1, group.min_replicas),
        "max_replicas": group.max_replicas,
        "target_ongoing_requests": group.queue,
        "upscale_delay_s": group.scale_up_after_s,
        "downscale_delay_s": group.scale_down_after_s,
        "look_back_period_s": min(_AVERAGED_S, max(1.0, group.scale_up_after_s)),
        "metrics_interval_s": min(_AVERAGED_S, max(0.5, group.scale_up_after_s)),
        "policy": {"policy_function": _POLICY},
    }

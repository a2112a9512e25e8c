"""The ways in of a group, as replicas see them: found by name, opened where one is missing."""

import logging
from typing import Any

import ray
from ray.util import list_named_actors
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trivet.server.ray.group import Group
from trivet.server.ray.slots import Replica
from trivet.server.ray.way_in import WayIn

log = logging.getLogger(__name__)
NAMESPACE = "trivet"
_HEAD = "node:__internal_head__"
"""The resource that Ray gives to a cluster's head alone."""


class WaysIn:
    """Owned by one replica's thread."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._prefix = f"way-in/{group.name}/{group.host}:{group.http_port}:{group.grpc_port}/"
        self._known: dict[str, Any] = {}

    def look(self) -> None:
        """Opens what is missing, on this node and on the head (where requests wait while there is
        no replica), and finds the others."""
        here = ray.get_runtime_context().get_node_id()
        for node in {here, head_node() or here}:
            self._open(node)
        there = {
            each["name"]
            for each in list_named_actors(all_namespaces=True)
            if each["namespace"] == NAMESPACE and each["name"].startswith(self._prefix)
        }
        self._known = {name: each for name, each in self._known.items() if name in there}
        for name in there - self._known.keys():
            try:
                self._known[name] = ray.get_actor(name, NAMESPACE)
            except ValueError:
                log.info("way in %s has just gone", name)

    def say(self, replica: Replica) -> None:
        """To all, without waiting: that this one is ready."""
        for name in self._known:
            self._say(name, replica)

    def open(self, replica: Replica, within_s: float) -> None:
        """Says it to all, and waits until clients can ask on this node; on the head, too, unless
        that takes longer. Raises RayError where this node's way in does not open."""
        here = self._prefix + ray.get_runtime_context().get_node_id()
        told = {name: self._say(name, replica) for name in self._known}
        ray.get(told[here], timeout=within_s)
        head = told.get(f"{self._prefix}{head_node()}")
        if head is not None:
            ray.wait([head], timeout=within_s)

    def _say(self, name: str, replica: Replica) -> Any:
        hear = self._known[name].hear
        return hear.remote(replica.name, replica.host, replica.http_port, replica.grpc_port)

    def release(self, name: str) -> None:
        """To all: that it has ended."""
        for each in self._known.values():
            each.release.remote(name)

    def _open(self, node: str) -> None:
        made = ray.remote(WayIn).options(
            name=self._prefix + node,
            namespace=NAMESPACE,
            get_if_exists=True,
            lifetime="detached",
            num_cpus=0,
            max_restarts=-1,
            max_concurrency=10_000,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        )
        self._known[self._prefix + node] = made.remote(self._group.arguments())


def head_node() -> str | None:
    """The id of the cluster's head, where it lives."""
    for node in ray.nodes():
        if node["Alive"] and _HEAD in node["Resources"]:
            found: str = node["NodeID"]
            return found
    return None

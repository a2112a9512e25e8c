"""A group of models as Ray is to run it: what a Serve application's arguments say, checked."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from typing import Any

from trivet.backends.api import InvalidConfig

CHECK_PERIOD_S = 1.0
"""Time between two looks at a replica, whoever looks."""
MISSES = 2
"""Looks in a row that find it not ready before it gets no more requests."""
OWN_ADDRESS = "node"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?")
_OURS = ("http", "grpc", "metrics")
"""Rooms whose addresses a replica chooses itself."""
_OWN_FLAGS = tuple(f"--{room}-{what}" for room in _OURS for what in ("port", "address"))
_DRAIN_FLAGS = ("--drain-delay-secs", "--exit-timeout-secs")


@dataclass(frozen=True, slots=True)
class Group:
    """What each replica serves, how many there are, and where clients ask."""

    repository: tuple[str, ...]
    """Folders that each node has, or addresses."""
    name: str = "models"
    flags: tuple[str, ...] = ()
    """Further flags of `trivet serve`."""
    host: str = "127.0.0.1"
    """Where ways in listen: an address that all nodes have, or `node` for each one's own."""
    http_port: int = 8000
    grpc_port: int = 8001
    min_replicas: int = 1
    max_replicas: int = 1
    queue: float = 8.0
    """Requests in the queue of one replica from which on there should be more of them."""
    cpus: float = 1.0
    gpus: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)
    """Other resources of Ray that a replica takes, such as a slice of a GPU."""
    scale_up_after_s: float = 10.0
    scale_down_after_s: float = 300.0
    drain_delay_s: float = 4.0
    longest_request_s: float = 30.0
    longest_load_s: float = 600.0

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> "Group":
        """From the arguments of an application. Raises InvalidConfig."""
        known = {each.name for each in fields(cls)}
        for key in arguments.keys() - known:
            near = get_close_matches(key, known, n=1)
            meant = f"; did you mean '{near[0]}'?" if near else f"; there are {sorted(known)}"
            raise InvalidConfig(f"a group of models has no '{key}'{meant}")
        if not arguments.get("repository"):
            raise InvalidConfig("a group of models needs 'repository': a folder or an address")
        return cls(**{key: _taken(key, value) for key, value in arguments.items()})

    def __post_init__(self) -> None:
        """Raises InvalidConfig for what does not fit together."""
        if not _NAME.fullmatch(self.name):
            raise InvalidConfig(
                f"'{self.name}' cannot be a group's name: small letters, digits and dashes inside, "
                "42 at most"
            )
        self._check_replicas()
        self._check_ports()
        self._check_flags()
        self._check_drain()

    @property
    def end_s(self) -> float:
        """How long a replica may take to end: it drains, and has a little time besides."""
        return self.drain_delay_s + self.longest_request_s + 5.0

    @property
    def is_open(self) -> bool:
        """Whether other machines can ask."""
        return self.host == OWN_ADDRESS or not ipaddress.ip_address(self.host).is_loopback

    @property
    def knows_callers(self) -> bool:
        """Whether replicas ask for keys, or were told that they need not."""
        return any(
            each.partition("=")[0] in ("--auth-keys-file", "--allow-unauthenticated")
            for each in self.flags
        )

    def arguments(self) -> dict[str, Any]:
        """What `of` makes this of, without what is as ever."""
        usual = Group(repository=self.repository)
        differing = {
            key: value for key, value in asdict(self).items() if value != getattr(usual, key)
        }
        named = {"name": self.name, "repository": list(self.repository), **differing}
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in named.items()
        }

    def _check_replicas(self) -> None:
        if not 0 <= self.min_replicas <= self.max_replicas or self.max_replicas < 1:
            raise InvalidConfig(
                f"between min_replicas {self.min_replicas} and max_replicas {self.max_replicas} of "
                f"group '{self.name}' there is no number of replicas; 0 <= min <= max, and max >= 1"
            )
        if self.queue <= 0:
            raise InvalidConfig(f"queue of group '{self.name}' must be more than 0: {self.queue:g}")
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise InvalidConfig(
                f"a replica of group '{self.name}' cannot have {self.gpus:g} GPUs: parts of a GPU "
                "are less than one, and more than one are whole"
            )

    def _check_ports(self) -> None:
        for name, port in (("http_port", self.http_port), ("grpc_port", self.grpc_port)):
            if not 0 < port < 65536:
                raise InvalidConfig(f"{name} of group '{self.name}' is no port: {port}")
        if self.http_port == self.grpc_port:
            raise InvalidConfig(
                f"http_port and grpc_port of group '{self.name}' are both {self.http_port}"
            )
        self._check_host()

    def _check_host(self) -> None:
        try:
            is_open = self.is_open
        except ValueError:
            raise InvalidConfig(
                f"host of group '{self.name}' is no IP address: '{self.host}'; 0.0.0.0 are all "
                f"that a node has, {OWN_ADDRESS} is the one that Ray knows it by"
            ) from None
        if is_open and not self.knows_callers:
            raise InvalidConfig(
                f"ways in of group '{self.name}' listen on {self.host}, where other machines can "
                "ask: give the flag --auth-keys-file=FILE, or --allow-unauthenticated=true"
            )

    def _check_flags(self) -> None:
        for flag in self.flags:
            name = flag.partition("=")[0]
            if name in _OWN_FLAGS:
                raise InvalidConfig(
                    f"{name} of group '{self.name}': replicas choose their addresses; clients ask "
                    "at host, http_port and grpc_port"
                )
            if name in _DRAIN_FLAGS:
                raise InvalidConfig(
                    f"{name} of group '{self.name}' is drain_delay_s or longest_request_s here, so "
                    "that Ray waits as long"
                )

    def _check_drain(self) -> None:
        least = (MISSES + 1) * CHECK_PERIOD_S
        if self.drain_delay_s < least:
            raise InvalidConfig(
                f"drain_delay_s of group '{self.name}' is {self.drain_delay_s:g}: a replica has to "
                f"serve {least:g} s more, until all ways in have noticed that it ends"
            )


def _taken(key: str, value: Any) -> Any:
    """A value as the group has it: lists of texts, numbers as such."""
    if key in ("repository", "flags"):
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list | tuple) or not all(isinstance(each, str) for each in texts):
            raise InvalidConfig(f"'{key}' of a group is no list of texts: {value!r}")
        return tuple(texts)
    if key == "resources":
        if not isinstance(value, Mapping) or not all(map(_is_number, value.values())):
            raise InvalidConfig(f"'resources' of a group are no numbers by name: {value!r}")
        return dict(value)
    usual: Any = next(each for each in fields(Group) if each.name == key).default
    if isinstance(usual, str):
        if not isinstance(value, str):
            raise InvalidConfig(f"'{key}' of a group is no text: {value!r}")
        return value
    if not _is_number(value) or (isinstance(usual, int) and value != int(value)):
        raise InvalidConfig(f"'{key}' of a group is no {type(usual).__name__}: {value!r}")
    return type(usual)(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9

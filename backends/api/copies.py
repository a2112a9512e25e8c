"""The kinds of copies that tensors go through."""

from enum import Enum


class CopyKind(Enum):
    """Where tensor bytes are copied, as the metric's label says it."""

    HOST = "host"
    GATHER = "gather"
    """The requests of a batch into one array."""
    SCATTER = "scatter"
    """A batch's output that cannot be handed out as views."""
    HOST_TO_DEVICE = "host_to_device"
    DEVICE_TO_HOST = "device_to_host"
    DEVICE = "device"
    """On a device: the requests of a batch into one array."""

    __hash__ = object.__hash__

"""Where the outputs of steps are wanted: on the device that makes them, on the host, or both. Pure.

Only models take tensors on a device. The answer (unless whoever asks the ensemble takes it there),
conditions and lists that a step is mapped over are read on the host. A model that computes on the
host has its inputs brought there by its own thread.
"""

from collections.abc import Mapping, Sequence

from trivet.backends.api import Residence
from trivet.ensembles.graph import Edge, Step

Residences = Mapping[int, Mapping[str, Residence]]
"""By step, then by output name of its model; what is not in it is wanted on the host."""


def residences(
    steps: Sequence[Step], outputs: Sequence[Edge], wanted: Mapping[str, Residence]
) -> Residences:
    """For a run of some steps. `wanted`: where whoever asks wants the ensemble's outputs."""
    on_host, ready, on_device = _readers(steps, outputs, wanted)
    return {
        step.number: {
            edge.name: _residence(edge.tensor, on_host, ready)
            for edge in step.outputs
            if edge.tensor in on_device and not step.settings.map
        }
        for step in steps
    }


def _residence(tensor: str, on_host: set[str], ready: set[str]) -> Residence:
    if tensor in on_host:
        return Residence.BOTH
    return Residence.READY if tensor in ready else Residence.DEVICE


def _readers(
    steps: Sequence[Step], outputs: Sequence[Edge], wanted: Mapping[str, Residence]
) -> tuple[set[str], set[str], set[str]]:
    """The tensors that are read on the host, that must be there when the answer is, and that some
    reader takes on a device."""
    on_host: set[str] = set()
    ready: set[str] = set()
    on_device: set[str] = set()
    for edge in outputs:
        wish = wanted.get(edge.name, Residence.HOST)
        if wish in (Residence.HOST, Residence.BOTH):
            on_host.add(edge.tensor)
        if wish is not Residence.HOST:
            on_device.add(edge.tensor)
        if wish is Residence.READY:
            ready.add(edge.tensor)
    mapped: set[str] = set()
    for step in steps:
        mapped.update(step.settings.map)
        for condition in (step.when, step.return_if):
            on_host.update(condition.tensors if condition is not None else ())
        on_device.update(edge.tensor for edge in step.inputs)
    return on_host | mapped, ready, on_device - mapped

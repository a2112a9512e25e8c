"""MLPs in torch, by kind."""

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor
from torch.nn import functional

from trivet.backends.llm.families.kinds import Activation, GatedMlp, Mlp
from trivet.backends.llm.models.parts import MlpWeights

MlpFunction = Callable[[Tensor], Tensor]
"""[N, hidden] to this rank's part of the sum, [N, hidden]."""
ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    Activation.SILU: functional.silu,
    Activation.GELU: functional.gelu,
    Activation.GELU_TANH: partial(functional.gelu, approximate="tanh"),
}


def make_mlp(kind: Mlp, weights: MlpWeights) -> MlpFunction:
    """An MLP of its kind."""
    inner = weights.inner.product(weights.inner_bias)
    down = weights.down.product(weights.down_bias)
    activate = ACTIVATIONS[kind.activation]
    if isinstance(kind, GatedMlp):

        def gated(states: Tensor) -> Tensor:
            gate, up = inner(states).chunk(2, dim=-1)
            return down(activate(gate).mul_(up))

        return gated
    return lambda states: down(activate(inner(states)))

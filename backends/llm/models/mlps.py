"""MLPs in torch, by kind."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from trivet.backends.llm.families.kinds import Activation, ExpertMlp, GatedMlp, PlainMlp
from trivet.backends.llm.models.parts import ExpertWeights, MlpWeights

MlpFunction = Callable[[Tensor], Tensor]
"""[N, hidden] to this rank's part of the sum, [N, hidden]."""
ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    Activation.SILU: functional.silu,
    Activation.GELU: functional.gelu,
    Activation.GELU_TANH: partial(functional.gelu, approximate="tanh"),
    Activation.GELU_SIGMOID: lambda states: states * torch.sigmoid(1.702 * states),
    Activation.RELU: functional.relu,
    Activation.RELU_SQUARED: lambda states: functional.relu(states).square_(),
}


def make_mlp(kind: GatedMlp | PlainMlp, weights: MlpWeights) -> MlpFunction:
    """A dense MLP of its kind."""
    inner = weights.inner.product(weights.inner_bias)
    down = weights.down.product(weights.down_bias)
    activate = ACTIVATIONS[kind.activation]
    if isinstance(kind, GatedMlp):

        def gated(states: Tensor) -> Tensor:
            gate, up = inner(states).chunk(2, dim=-1)
            return down(activate(gate).mul_(up))

        return gated
    return lambda states: down(activate(inner(states)))


class Experts:
    """A mixture of experts. Tokens are sorted by expert: each expert that a token has chosen
    multiplies all its tokens at once, and the others are not touched."""

    def __init__(self, kind: ExpertMlp, weights: ExpertWeights) -> None:
        self._num_experts, self._num_active = kind.num_experts, kind.num_active
        self._is_normalised = kind.is_normalised
        self._router = weights.router.product()
        self._experts = [make_mlp(kind.expert, each) for each in weights.experts]
        self._shared: MlpFunction | None = None
        if kind.shared is not None and weights.shared is not None:
            assert weights.shared_share is not None
            self._shared = make_mlp(kind.shared, weights.shared)
            self._share = weights.shared_share.product()

    def __call__(self, states: Tensor) -> Tensor:
        """See MlpFunction."""
        shares, chosen = self._choose(states)
        order = chosen.flatten().argsort(stable=True)
        tokens = order // self._num_active
        outputs = self._of_experts(states[tokens], chosen) * shares.flatten()[order].unsqueeze(1)
        result = torch.zeros_like(states).index_add_(0, tokens, outputs.to(states.dtype))
        if self._shared is not None:
            result += torch.sigmoid(self._share(states)) * self._shared(states)
        return result

    def _choose(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Shares and numbers of each token's experts, both [N, active]."""
        scores = self._router(states).softmax(dim=-1, dtype=torch.float32)
        shares, chosen = scores.topk(self._num_active, dim=-1)
        if self._is_normalised:
            shares /= shares.sum(dim=-1, keepdim=True)
        return shares.to(states.dtype), chosen

    def _of_experts(self, rows: Tensor, chosen: Tensor) -> Tensor:
        """`rows`: of all tokens and their experts, sorted by expert."""
        counts = chosen.flatten().bincount(minlength=self._num_experts).tolist()
        outputs, start = torch.empty_like(rows), 0
        for expert, count in zip(self._experts, counts, strict=True):
            if count:
                outputs[start : start + count] = expert(rows[start : start + count])
                start += count
        return outputs

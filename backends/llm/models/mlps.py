"""MLPs in torch, by kind."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from trivet.backends.llm.adapters.bank import AdapterBank
from trivet.backends.llm.families.kinds import Activation, ExpertMlp, GatedMlp, PlainMlp
from trivet.backends.llm.matrices.dense import Dense
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
        limit, offset = kind.limit, kind.up_offset

        def limited(states: Tensor) -> Tensor:
            gate, up = inner(states).chunk(2, dim=-1)
            if limit:
                gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
            return down(activate(gate).mul_(up + offset))

        def gated(states: Tensor) -> Tensor:
            gate, up = inner(states).chunk(2, dim=-1)
            return down(activate(gate).mul_(up))

        return limited if limit or offset else gated
    return lambda states: down(activate(inner(states)))


class Experts:
    """A mixture of experts. Tokens are sorted by expert: each expert that a token has chosen
    multiplies all its tokens at once, and the others are not touched."""

    def __init__(
        self, kind: ExpertMlp, weights: ExpertWeights, adapters: AdapterBank | None = None
    ) -> None:
        self._kind, self._adapters = kind, adapters
        self._router = _router(kind, weights)
        self._correction = weights.correction
        self._experts = [make_mlp(kind.expert, each) for each in weights.experts]
        self._shared = _shared(kind, weights)

    def __call__(self, states: Tensor) -> Tensor:
        """See MlpFunction."""
        shares, chosen = self._choose(states)
        order = chosen.flatten().argsort(stable=True)
        tokens = order // self._kind.num_active
        outputs = self._of_experts(states[tokens], chosen, tokens)
        outputs = outputs * shares.flatten()[order].unsqueeze(1)
        # Each token's together: summed one after the other, each sum would be rounded.
        own = outputs[order.argsort()].view(*chosen.shape, -1)
        result = own.sum(dim=1).to(states.dtype)
        if self._shared is not None:
            result += self._shared(states)
        return result

    def _choose(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Shares and numbers of each token's experts, both [N, active]."""
        kind = self._kind
        logits = self._router(states)
        if self._correction is None:
            scores = logits.softmax(dim=-1)
            wanted = scores
        else:
            scores = logits.sigmoid()
            wanted = scores + self._correction
        if kind.num_groups > 1:
            wanted = _of_best_groups(wanted, kind)
        chosen = wanted.topk(kind.num_active, dim=-1).indices
        shares = scores.gather(1, chosen)
        if kind.is_normalised:
            # The least is DeepSeek's, against a division by 0.
            shares = shares / shares.sum(dim=-1, keepdim=True).clamp_min(1e-20)
        shares = shares * kind.multiplier
        is_exact = kind.has_exact_router or kind.has_exact_shares
        return shares if is_exact else shares.to(states.dtype), chosen

    def _of_experts(self, rows: Tensor, chosen: Tensor, tokens: Tensor) -> Tensor:
        """`rows`: of all tokens and their experts, sorted by expert; `tokens`: theirs."""
        counts = chosen.flatten().bincount(minlength=self._kind.num_experts).tolist()
        outputs, start = torch.empty_like(rows), 0
        for expert, count in zip(self._experts, counts, strict=True):
            if count:
                mine = slice(start, start + count)
                if self._adapters is not None:
                    self._adapters.focus(tokens[mine])
                outputs[mine] = expert(rows[mine])
                start += count
        if self._adapters is not None:
            self._adapters.focus(None)
        return outputs


def _router(kind: ExpertMlp, weights: ExpertWeights) -> MlpFunction:
    """Logits in float32, [N, experts]."""
    matrix, bias = weights.router, weights.router_bias
    if kind.has_exact_router and isinstance(matrix, Dense):
        data, exact_bias = matrix.data.float(), None if bias is None else bias.float()
        return lambda states: functional.linear(states.float(), data, exact_bias)
    product = matrix.product(bias)
    return lambda states: product(states).float()


def _of_best_groups(wanted: Tensor, kind: ExpertMlp) -> Tensor:
    """Without the experts of other groups than those whose best ones are wanted most."""
    groups = wanted.view(len(wanted), kind.num_groups, -1)
    best = (
        groups.topk(kind.num_telling, dim=-1)
        .values.sum(dim=-1)
        .topk(kind.num_active_groups, dim=-1)
        .indices
    )
    is_best = torch.zeros_like(groups[..., 0], dtype=torch.bool).scatter_(1, best, value=True)
    return groups.masked_fill(~is_best.unsqueeze(-1), -torch.inf).view(wanted.shape)


def _shared(kind: ExpertMlp, weights: ExpertWeights) -> MlpFunction | None:
    """The expert of all tokens."""
    if kind.shared is None or weights.shared is None:
        return None
    whole = make_mlp(kind.shared, weights.shared)
    if weights.shared_share is None:
        return whole
    share = weights.shared_share.product()
    return lambda states: torch.sigmoid(share(states)) * whole(states)

"""Multi-head latent attention in torch: queries are brought to the latent that heads share."""

import torch
from torch import Tensor

from trivet.backends.llm.attention.base import Attention
from trivet.backends.llm.families.kinds import GroupedAttention
from trivet.backends.llm.models.heads import Turn, rotated_part
from trivet.backends.llm.models.norms import make_norm
from trivet.backends.llm.models.parts import LatentWeights


class LatentHeads:
    """One layer's attention.

    With keys K = U c of a latent c, a query's scores q . U c are (U^t q) . c: so the query is
    multiplied once, instead of U with each cached token. In the same way values are made of what
    was attended to, once a query (DeepSeek-V2, 2024, 2.1.2: matrices are absorbed).
    """

    def __init__(
        self, kind: GroupedAttention, weights: LatentWeights, attention: Attention, layer: int
    ) -> None:
        """`kind`: of what this process computes."""
        latent = kind.latent
        assert latent is not None
        self._num_heads, self._rotary_size = kind.num_heads, kind.rotary_size
        self._plain_size, self._rank = latent.plain_size, latent.rank
        self._attention, self._layer = attention, layer
        self._queries = weights.queries.product()
        if weights.query_down is not None and weights.query_norm is not None:
            down = weights.query_down.product(weights.query_down_bias)
            norm, queries = make_norm(latent.norm, weights.query_norm), self._queries
            self._queries = lambda states: queries(norm(down(states)))
        self._latent = weights.latent.product(weights.latent_bias)
        self._norm = make_norm(latent.norm, weights.latent_norm)
        self._keys, self._values = weights.keys, weights.values
        self._output = weights.output.product(weights.output_bias)

    def __call__(self, states: Tensor, turn: Turn | None) -> Tensor:
        """See AttendFunction."""
        assert turn is not None
        queries = self._queries(states).view(len(states), self._num_heads, -1)
        rotated, plain = torch.split(queries, [self._rotary_size, self._plain_size], dim=-1)
        brought = torch.bmm(plain.transpose(0, 1), self._keys).transpose(0, 1)
        key, latent = torch.split(self._latent(states), [self._rotary_size, self._rank], dim=-1)
        cached = torch.cat((key, self._norm(latent)), dim=-1).unsqueeze(1)
        heads = torch.cat((torch.cat((rotated, brought), dim=-1), cached), dim=1)
        query, cached = torch.split(rotated_part(heads, *turn), [self._num_heads, 1], dim=1)
        attended = self._attention.attend(self._layer, query, cached, cached)
        latents = attended[..., self._rotary_size :]
        values = torch.bmm(latents.transpose(0, 1), self._values).transpose(0, 1)
        return self._output(values.reshape(len(states), -1))

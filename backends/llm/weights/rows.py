"""In which order a file has the outputs of queries, keys and values, and in which they are
computed: all queries, then all keys, then all values, each head's for a rotation of halves."""

import torch
from torch import Tensor

from trivet.backends.llm.families.kinds import GroupedAttention, Latent
from trivet.backends.llm.families.names import Role, WeightName


def computed_order(name: WeightName, kind: GroupedAttention) -> Tensor | None:
    """The rows of Hugging Face's file, in our order; None where that is the file's."""
    if kind.latent is not None:
        return _of_latent(name, kind, kind.latent)
    if name.groups_heads:
        return _grouped(kind)
    if name.interleaves:
        total = sum(kind.outputs[role] for role in name.roles)
        heads = torch.arange(total).view(-1, kind.head_dim)
        return heads[:, neighbours(kind)].flatten()
    return None


def _of_latent(name: WeightName, kind: GroupedAttention, latent: Latent) -> Tensor | None:
    """What is rotated comes last in files, and first here."""
    role = name.roles[0]
    plain = {Role.QUERY: latent.plain_size, Role.LATENT: latent.rank}.get(role)
    if plain is None:
        return None
    rows = torch.arange(kind.outputs[role]).view(-1, plain + kind.rotary_size)
    turned = rows[:, plain:]
    if name.interleaves:
        turned = torch.cat((turned[:, ::2], turned[:, 1::2]), dim=1)
    return torch.cat((turned, rows[:, :plain]), dim=1).flatten()


def neighbours(kind: GroupedAttention) -> Tensor:
    """The numbers of a head that is to be rotated by neighbours, for a rotation of halves: scores
    stay the same where queries and keys are brought into another order alike."""
    places, size = torch.arange(kind.head_dim), kind.rotary_size or kind.head_dim
    turned = places[:size]
    return torch.cat((turned[::2], turned[1::2], places[size:]))


def _grouped(kind: GroupedAttention) -> Tensor:
    """From queries, key and value of each key/value head."""
    group = kind.num_heads // kind.num_kv_heads
    total = (kind.num_heads + 2 * kind.num_kv_heads) * kind.head_dim
    rows = torch.arange(total).view(kind.num_kv_heads, group + 2, kind.head_dim)
    queries, keys, values = torch.split(rows, [group, 1, 1], dim=1)
    return torch.cat((queries.flatten(), keys.flatten(), values.flatten()))

"""What families of mixtures share: how many experts there are and in which groups, and what files
call them."""

from dataclasses import replace

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.gguf import Values
from trivet.backends.llm.families.kinds import ExpertMlp, GatedMlp
from trivet.backends.llm.families.llama import HALVES_NAMES
from trivet.backends.llm.families.names import Names, Role, weight

_LAYER = "model.layers.{layer}."
_MLP = f"{_LAYER}mlp."
EXPERT_NAMES: Names = HALVES_NAMES.having(
    weight(f"{_MLP}gate", Role.ROUTER),
    weight(f"{_MLP}experts.{{expert}}.gate_proj", Role.EXPERT_GATE),
    weight(f"{_MLP}experts.{{expert}}.up_proj", Role.EXPERT_UP),
    weight(f"{_MLP}experts.{{expert}}.down_proj", Role.EXPERT_DOWN),
    weight(f"{_MLP}shared_expert.gate_proj", Role.SHARED_GATE),
    weight(f"{_MLP}shared_expert.up_proj", Role.SHARED_UP),
    weight(f"{_MLP}shared_expert.down_proj", Role.SHARED_DOWN),
    weight(f"{_MLP}shared_expert_gate", Role.SHARED_SHARE),
)
CORRECTED_NAMES: Names = EXPERT_NAMES.having(
    weight(f"{_MLP}shared_experts.gate_proj", Role.SHARED_GATE),
    weight(f"{_MLP}shared_experts.up_proj", Role.SHARED_UP),
    weight(f"{_MLP}shared_experts.down_proj", Role.SHARED_DOWN),
    weight(f"{_MLP}gate.e_score_correction_bias", Role.CORRECTION, is_bare=True),
)

CORRECTED_KEYS = {
    "expert_count": "n_routed_experts",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_count": "n_shared_experts",
    "expert_weights_scale": "routed_scaling_factor",
    "expert_weights_norm": "norm_topk_prob",
    "expert_group_count": "n_group",
    "expert_group_used_count": "topk_group",
    "expert_gating_func": "gating",
    "leading_dense_block_count": "first_k_dense_replace",
    "nextn_predict_layers": "num_mtp_layers",
}
"""GGUF's of mixtures whose shares may be corrected, and config.json's."""
SOFTMAX_GATING, SIGMOID_GATING = 1, 2
"""GGUF's words for them."""


def without_further(values: Values) -> Values:
    """What follows from a GGUF file's keys: its layers include those that are not computed."""
    further = values.get("num_mtp_layers", 0)
    return {
        "num_mtp_layers": further,
        "num_hidden_layers": values["num_hidden_layers"] - further,
    }


def mixture(
    config: Described,
    num_experts: int,
    num_active: int | None,
    expert: GatedMlp,
    *,
    is_normalised: bool,
    has_exact_shares: bool = False,
) -> ExpertMlp:
    """`num_active`: where the file does not say; None: it must. Raises LoadFailed."""
    num_active = config.size("num_experts_per_tok", num_active)
    if num_active > num_experts:
        raise LoadFailed(
            f"config.json has num_experts_per_tok {num_active}, more than its {num_experts} experts"
        )
    return ExpertMlp(
        num_experts, num_active, expert, is_normalised, has_exact_shares=has_exact_shares
    )


def in_groups(experts: ExpertMlp, num_groups: int, num_active: int) -> ExpertMlp:
    """A mixture whose experts are chosen by groups. Raises LoadFailed where it cannot be."""
    size, rest = divmod(experts.num_experts, num_groups)
    too_few = size < experts.num_telling if num_groups > 1 else False
    if rest or too_few or not experts.num_active // size <= num_active <= num_groups:
        raise LoadFailed(
            f"config.json has n_group {num_groups} and topk_group {num_active}, in which its "
            f"n_routed_experts {experts.num_experts} cannot be to choose num_experts_per_tok "
            f"{experts.num_active} of them"
        )
    return replace(experts, num_groups=num_groups, num_active_groups=num_active)

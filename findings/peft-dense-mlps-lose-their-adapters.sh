#!/usr/bin/env bash
# peft 0.21.2 with transformers 5.23.0: which MLPs does a LoRA of gate_proj, up_proj, down_proj train?
#
# Situation: decoders with experts, besides which some layers have a plain MLP and some an expert of all
# tokens; LoraConfig(target_modules=["gate_proj", "up_proj", "down_proj"]), or "all-linear".
# Guess: what has these names gets adapters, in all layers; "all-linear" leaves out no nn.Linear but the head.
# Seen: (1) Qwen3-MoE, GLM-4-MoE and DeepSeek V3: the names are taken for those of the routed experts, which
# are one parameter now, and for nothing else. The first layer's MLP and the shared expert, whose nn.Linear
# layers still have just these names, get none; "all-linear" leaves them out, too. (2) Qwen2-MoE, whose
# layers are alike: the shared expert gets adapters, and the routed ones none. No error, no warning.
# So: the same config trains other parts of models that look alike, and an adapter of a shared expert is
# none that PEFT would make: count the trainable parameters, and compare with the merged model by hand.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 peft==0.21.2
cat > "$folder/targets.py" <<'END'
import peft
import transformers

transformers.utils.logging.set_verbosity_error()
ROUTED = {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "n_shared_experts": 1, "first_k_dense_replace": 1}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
SHAPES = {
    "Qwen3Moe": {"num_experts": 4, "mlp_only_layers": [0], "head_dim": 8},
    "Glm4Moe": {**ROUTED, "head_dim": 8},
    "DeepseekV3": {**ROUTED, **LATENT},
    "Qwen2Moe": {"num_experts": 4, "shared_expert_intermediate_size": 16},
}


def adapted(family, targets):
    config = getattr(transformers, f"{family}Config")(
        vocab_size=96, hidden_size=32, intermediate_size=48, moe_intermediate_size=16,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, num_experts_per_tok=2,
        **SHAPES[family],
    )
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    made = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=targets))
    names = [name for name, each in made.named_parameters() if each.requires_grad and ".mlp." in name]
    stems = {name.split("layers.")[1].split(".lora_")[0].replace(".base_layer", "") for name in names}
    return {stem for stem in stems if not stem.endswith(("gate", ".shared_expert_gate"))}


for family in SHAPES:
    for targets in (["gate_proj", "up_proj", "down_proj"], "all-linear"):
        found = adapted(family, targets)
        print(family, targets, sorted(found))
        if family == "Qwen2Moe":
            assert found and all("shared_expert." in stem for stem in found), "others are adapted now"
        else:
            assert found == {"1.mlp.experts"}, "others are adapted now"
END
"$folder/venv/bin/python" -W ignore "$folder/targets.py"
echo "as described"

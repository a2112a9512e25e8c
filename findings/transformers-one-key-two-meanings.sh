#!/usr/bin/env bash
# transformers 5.23.0: keys of config.json that mean something else in a sister class.
#
# Situation: a reader of config.json that takes keys of one name for the same thing in a family's
# classes, which share most of their code.
# Guess: (1) max_window_layers says from which layer on Qwen2 has windows, so it does in Qwen2-MoE;
# (2) a config of OLMo 3 in the spelling before version 5 gives all its layers its rope_theta;
# (3) rope_scaling of type "yarn" is YaRN.
# Seen: (1) Qwen2 puts windows on the layers from that number on, Qwen2-MoE on those below it, of them
# every second. (2) Only the layers that see all get it; those with windows silently have the default,
# 500000. (3) Phi-3 makes longrope of it, where factors for both lengths are given.
# No error, no warning.
# So: a number of one layer more or less changes nothing until a prompt is longer than the window, and a
# rotation that is off by its base still gives fluent text: read the keys for each class by itself, and
# compare logits over more tokens than a window has.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.23.0
cat > "$folder/keys.py" <<'END'
from transformers import Olmo3Config, Phi3Config, Qwen2Config, Qwen2MoeConfig

given = {"num_hidden_layers": 4, "max_window_layers": 3, "sliding_window": 8}
windows = {}
for kind in (Qwen2Config, Qwen2MoeConfig):
    types = kind(use_sliding_window=True, **given).layer_types
    windows[kind] = [layer for layer, name in enumerate(types) if name == "sliding_attention"]
    print(kind.__name__, "has windows on layers", windows[kind])
assert windows == {Qwen2Config: [3], Qwen2MoeConfig: [0, 2]}, "layers get windows otherwise now"

rope = Olmo3Config.from_dict({"rope_theta": 10_000.0}).rope_parameters
thetas = {name: rope[name]["rope_theta"] for name in sorted(rope) if name.endswith("attention")}
print("OLMo 3:", thetas)
assert thetas == {"full_attention": 10_000.0, "sliding_attention": 500_000.0}, "bases are others now"

factors = {"short_factor": [1.0] * 48, "long_factor": [2.0] * 48}
phi = Phi3Config.from_dict({"rope_scaling": {"type": "yarn", "factor": 4.0, **factors}})
print("Phi-3: yarn is", phi.rope_parameters["rope_type"])
assert phi.rope_parameters["rope_type"] == "longrope", "yarn is read otherwise now"
END
"$folder/venv/bin/python" "$folder/keys.py"
echo "as described"

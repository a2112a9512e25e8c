#!/usr/bin/env bash
# transformers 5.23.0 with torch 2.13.0: where do positions of RobertaForCausalLM begin?
#
# Situation: a decoder of RoBERTa's kind (RobertaForCausalLM, also CamemBERT, Data2Vec-text, XLM-RoBERTa,
# XMOD) is asked for the token behind a prompt, once by its forward pass and once by `generate`.
# Guess: `generate` with do_sample=False gives the likeliest token of the forward pass.
# Seen: the forward pass numbers positions from padding_idx + 1 (2, 3, 4 ...), as these models were trained.
# `generate` hands the model position_ids of its own, from 0, which are taken as they are: other rows of
# the table of positions, other logits, another token. Nothing is said.
# So: outputs of `generate` are no reference for these classes; and who numbers positions himself, as
# batching engines do, has to add padding_idx + 1 where the class does, or pass none.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
cat > "$folder/positions.py" <<'END'
import torch
import transformers

transformers.utils.logging.set_verbosity_error()
config = transformers.RobertaConfig(
    vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
    max_position_embeddings=66, is_decoder=True, pad_token_id=1, bos_token_id=0, eos_token_id=2,
    initializer_range=0.3,
)
torch.manual_seed(0)
model = transformers.RobertaForCausalLM(config).eval()
rows = []
model.roberta.embeddings.position_embeddings.register_forward_pre_hook(
    lambda module, given: rows.append(given[0].flatten().tolist())
)
ids = torch.tensor([[0, 11, 12, 13, 14]])
with torch.no_grad():
    forward = model(input_ids=ids, use_cache=False).logits[0, -1]
    generated = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=1,
        output_logits=True, return_dict_in_generate=True,
    )
print("forward ", rows[0])
print("generate", rows[1])
print("logits differ by more than 1:", bool((forward - generated.logits[0][0]).abs().max() > 1))
END
"$folder/venv/bin/python" "$folder/positions.py" > "$folder/seen"
cat "$folder/seen"
diff "$folder/seen" - <<'END'
forward  [2, 3, 4, 5, 6]
generate [0, 1, 2, 3, 4]
logits differ by more than 1: True
END
echo "as described"

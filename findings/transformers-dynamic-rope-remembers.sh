#!/usr/bin/env bash
# transformers 5.23.0 with torch 2.13.0: what does a model with dynamic rope scaling give for a prompt?
#
# Situation: a LlamaForCausalLM whose rope_parameters are {"rope_type": "dynamic", "factor": 4.0}, made for
# 32 positions, is given a prompt of 48 tokens: by itself, after one of 96 tokens, and in a batch beside
# one of 96 tokens, each time without a cache.
# Guess: dynamic scaling turns positions by the length of the prompt, so all three give the same.
# Seen: beside or after a longer one it gives other logits. The frequencies are an attribute that grows
# with the longest position that it has ever seen; it goes back only when a prompt is shorter than
# max_position_embeddings. So what was asked before changes the answer to a later prompt of between 32 and
# 96 tokens, until somebody asks something short; and in a batch the longest row decides for all.
# So: comparisons beyond the unscaled length need a model that is fresh each time, and an engine that
# batches cannot be equal to it there; vLLM turns all lengths as the longest.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
cat > "$folder/lengths.py" <<'END'
import torch
import transformers

transformers.utils.logging.set_verbosity_error()


def model():
    config = transformers.LlamaConfig(
        vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, intermediate_size=48, max_position_embeddings=32,
        initializer_range=0.3, rope_parameters={"rope_type": "dynamic", "factor": 4.0},
    )
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).eval()


long = [(5 * place) % 96 for place in range(96)]
prompt = [(7 * place) % 96 for place in range(48)]


@torch.no_grad()
def last(one, *rows):
    """Logits behind the first row, to whose right there is nothing that it sees."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return one(input_ids=ids, attention_mask=mask, use_cache=False).logits[0, len(rows[0]) - 1]


alone = last(model(), prompt)
print("beside one as long:     ", bool(torch.allclose(alone, last(model(), prompt, prompt), atol=1e-4)))
print("beside a longer one:    ", bool(torch.allclose(alone, last(model(), prompt, long), atol=1e-4)))
asked = model()
last(asked, long)
print("after a longer one:     ", bool(torch.allclose(alone, last(asked, prompt), atol=1e-4)))
last(asked, prompt[:8])
print("after a short one again:", bool(torch.allclose(alone, last(asked, prompt), atol=1e-4)))
END
"$folder/venv/bin/python" "$folder/lengths.py" > "$folder/seen"
cat "$folder/seen"
diff "$folder/seen" - <<'END'
beside one as long:      True
beside a longer one:     False
after a longer one:      False
after a short one again: True
END
echo "as described"

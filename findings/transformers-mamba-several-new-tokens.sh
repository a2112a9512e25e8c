#!/usr/bin/env bash
# transformers 5.23.0 with torch 2.13.0: MambaForCausalLM goes on from its state with several tokens.
#
# Situation: a prompt is computed in chunks: the first with use_cache=True, the next with the cache_params
# that the first gave, as one does with the key/value cache of other models.
# Guess: the chunks' logits are those of the whole prompt, or the second call is refused.
# Seen: with one new token they are equal. With two or more the logits are others, without a word: a chunk
# is computed as a prompt's beginning, by code that does not read all of the state. (FalconMamba, Jamba, MiniMax and
# Zamba do the same; Mamba2, Bamba, Qwen3-Next and LFM2 go on rightly.)
# So: chunked prefill, speculative decoding and prefixes that are kept must feed these classes a token at
# a time behind the first chunk. A test with one token a step passes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
cat > "$folder/chunks.py" <<'END'
import torch
import transformers

transformers.utils.logging.set_verbosity_error()
config = transformers.MambaConfig(
    vocab_size=96, hidden_size=32, num_hidden_layers=2, state_size=8, initializer_range=0.3
)
torch.manual_seed(0)
model = transformers.MambaForCausalLM(config).eval()
ids = torch.tensor([[3, 11, 12, 13, 14, 15, 16, 17]])
with torch.no_grad():
    whole = model(input_ids=ids, use_cache=False).logits[0]
    for count in (1, 2, 4):
        first = model(input_ids=ids[:, :-count], use_cache=True)
        rest = model(input_ids=ids[:, -count:], cache_params=first.cache_params, use_cache=True)
        error = (rest.logits[0] - whole[-count:]).abs().max()
        print(count, "new tokens:", "equal" if error < 1e-4 else "different")
END
"$folder/venv/bin/python" "$folder/chunks.py" 2> /dev/null > "$folder/seen"
cat "$folder/seen"
diff "$folder/seen" - <<'END'
1 new tokens: equal
2 new tokens: different
4 new tokens: different
END
echo "as described"

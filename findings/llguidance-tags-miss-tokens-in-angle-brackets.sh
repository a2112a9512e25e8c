#!/usr/bin/env bash
# llguidance 1.9.1: may a model write a tag's mark with the token that it has for it?
#
# Situation: structural tags (text in which `<tool_call>` begins JSON of a schema) over a tokenizer.json
# that has `<tool_call>` among its added tokens with "special": false, as Qwen's have it.
# Guess: a token that is not special is text to a grammar; StructTag.to_grammar's assume_special=False is for
# such marks, and its default is for special ones.
# Seen: every added token of the form <...> is taken for a special one, whatever the file says; others, such
# as `[call]`, are not. A grammar that spells the mark lets the model write it letter by letter only: the
# token itself is forbidden, also within text in front. With assume_special=True the trigger is the token (what
# is spelled passes as text, whatever follows), but
# a tag's end (`</tool_call>`) is still spelled.
# So: ask LLTokenizer.is_special_token for each added token, and write those by their number (<[257]>).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q llguidance==1.9.1
cat > "$folder/tags.py" <<'END'
import json

import llguidance

letters = {letter: index for index, letter in enumerate("abcdefghijklmnopqrstuvwxyz<>[]_/17 ")}
size = len(letters)
texts = {"<eos>": True, "<tool_call>": False, "</tool_call>": False, "[call]": False}
added = {text: size + index for index, text in enumerate(texts)}
same = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
tokenizer = llguidance.LLTokenizer(
    json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
        "model": {"type": "BPE", "vocab": letters, "merges": []},
        "added_tokens": [
            {"id": added[text], "content": text, "special": special, **same}
            for text, special in texts.items()
        ],
    }),
    n_vocab=size + len(texts), eos_token=size,
)
print("taken for special:", [text for text in texts if tokenizer.is_special_token(added[text])])


def takes(pieces, **how):
    tag = llguidance.StructTag(
        trigger="<tool_call>", begin="<tool_call>", grammar={"enum": [17]}, end="</tool_call>"
    )
    matcher = llguidance.LLMatcher(tokenizer, llguidance.StructTag.to_grammar([tag], **how))
    ids = [id for piece in pieces for id in ([piece] if isinstance(piece, int) else map(letters.get, piece))]
    return matcher.validate_tokens(ids) == len(ids) and matcher.consume_tokens(ids) and matcher.is_accepting()


begin, end = added["<tool_call>"], added["</tool_call>"]
for how in (False, True):
    print(
        f"assume_special={how}:",
        "both tokens", takes([begin, "17", end], assume_special=how),
        "| end spelled", takes([begin, "17</tool_call>"], assume_special=how),
        "| both spelled", takes(["<tool_call>17</tool_call>"], assume_special=how),
    )
END
"$folder/venv/bin/python" "$folder/tags.py" > "$folder/seen"
cat "$folder/seen"
diff "$folder/seen" - <<'END'
taken for special: ['<eos>', '<tool_call>', '</tool_call>']
assume_special=False: both tokens False | end spelled False | both spelled True
assume_special=True: both tokens False | end spelled True | both spelled True
END
echo "as described"

"""Each of transformers' classes that generate text, served from a folder and compared with what its
own `generate` gives; and the table of it in docs/llm.md, which `make classes` writes anew."""

import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from real_engine import GREEDY, DrivenEngine, Result, rescheduled, submit
from tiny_decoders import MODEL_TYPES, VOCABULARY, tiny_model
from transformers import GenerationConfig

from trivet.backends.api import LoadFailed
from trivet.backends.llm import loading
from trivet.backends.llm.engine import assemble
from trivet.backends.llm.settings import EngineSettings

PAGE = Path(__file__).resolve().parents[1] / "docs" / "llm.md"
BEGIN = "<!-- classes: made by `make classes` -->\n"
END = "<!-- /classes -->\n"
HEAD = "| Computed | `model_type` |\n|---|---|\n"
REFUSED = "refused: "
BY_FAMILY = "by a family of trivet's own"
MODEL_LEN = 64
BLOCK_SIZE = 4
NUM_NEW = 6
TOLERANCE = 1e-3
_COMMON = [3 + (5 * place) % 89 for place in range(18)]
PROMPTS: tuple[list[int], ...] = (
    [7, 41, 12], [11 + (7 * place) % 83 for place in range(11)],
    [*_COMMON, 40, 31, 22], [*_COMMON, *(4 + (11 * place) % 71 for place in range(12))],
)  # fmt: skip
"""Shorter and longer than windows, convolutions and blocks; two begin alike."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of a class."""

    model_type: str
    way: str
    """How it is computed; empty: it is refused."""
    refusal: str = ""


def outcome_of(model_type: str, *, with_families: bool = False) -> Outcome:
    """Makes a tiny model of the class, serves it and compares. Fails where an answer differs."""
    try:
        model = tiny_model(model_type)
    except Exception as error:  # noqa: BLE001  # whatever its code says of what cannot be made
        return Outcome(model_type, "", f"no small model of it can be made ({_said(error)})")
    with tempfile.TemporaryDirectory() as folder, _heard() as heard:
        save(model, Path(folder))
        try:
            driven = open_folder(Path(folder), with_families=with_families)
        except LoadFailed as error:
            said = _said(error)
            return Outcome(model_type, "", said.partition("paged cache: ")[2] or said)
        compare(driven, model)
    ways = [text for text in heard if " of transformers is computed " in text]
    if not ways:
        return Outcome(model_type, BY_FAMILY)
    way = ways[-1].partition(" is computed ")[2].partition(", found out")[0]
    return Outcome(model_type, way)


def save(model: Any, folder: Path) -> None:
    """As Hugging Face's folders are."""
    # Without what a class would do besides, such as ending each text in a mark.
    model.generation_config = GenerationConfig()
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    model.outer_config.save_pretrained(folder)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "eos_token_id": 2}))
    tokens = {sign: index for index, sign in enumerate([*map(chr, range(33, 127)), "Ġ", "Ċ"])}
    assert len(tokens) == VOCABULARY
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(tokens, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))


def open_folder(folder: Path, *, with_families: bool) -> DrivenEngine:
    """An engine over a folder's model."""
    driven = DrivenEngine()
    settings = EngineSettings(
        str(folder), dtype="float32", num_threads=1, max_num_seqs=8, max_model_len=MODEL_LEN,
        block_size=BLOCK_SIZE, kv_cache_bytes=1 << 22,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        if not with_families:
            patch.setattr(assemble, "load_part", partial(loading.load_part, families=()))
        driven.engine, _ = assemble.make_engine(settings, driven.send)
    return driven


def compare(driven: DrivenEngine, model: Any) -> None:
    """Alone, batched, in chunks, with cached prefixes or without: all give what `generate` does."""
    wanted = [expected_tokens(model, prompt) for prompt in PROMPTS]
    caches = driven.engine._scheduler._tables._caches
    scored = replace(GREEDY, max_tokens=NUM_NEW, prompt_logprobs=0)
    plain = replace(GREEDY, max_tokens=NUM_NEW)
    for prompt, tokens in zip(PROMPTS, wanted, strict=True):
        result = driven.run([submit("alone", prompt, scored)])["alone"]
        assert result.tokens == tokens, f"alone: {result.error or result.tokens}, wanted {tokens}"
        compare_logprobs(result, model, prompt)
    for again in range(2):
        assert driven.tokens(PROMPTS, plain) == wanted, "batched"
        assert not again or not caches or driven.results["3"].num_cached >= len(_COMMON) // 4 * 4
    chunked = rescheduled(
        driven, block_size=BLOCK_SIZE, max_batched_tokens=7, prefix_caching=False, max_num_seqs=3,
        max_model_len=MODEL_LEN,
    )  # fmt: skip
    assert chunked.tokens(PROMPTS, plain) == wanted, "chunked"
    results = chunked.run([submit(str(at), ids, scored) for at, ids in enumerate(PROMPTS)])
    for at, (prompt, tokens) in enumerate(zip(PROMPTS, wanted, strict=True)):
        assert results[str(at)].tokens == tokens, f"chunked: {results[str(at)]}"
        compare_logprobs(results[str(at)], model, prompt)


def compare_logprobs(result: Result, model: Any, prompt: Sequence[int]) -> None:
    """Those of a prompt's tokens."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt]), use_cache=False).logits[0]
    wanted = torch.log_softmax(logits.float(), dim=-1)[:-1]
    found = [logprob for _, logprob, *_ in result.prompt_logprobs or []]
    tokens = torch.tensor(prompt[1:])
    torch.testing.assert_close(
        torch.tensor(found), wanted.gather(1, tokens[:, None])[:, 0], atol=TOLERANCE, rtol=0
    )


OF_FORWARD = frozenset({
    # Their positions begin behind that of the padding, as their checkpoints were trained, but from
    # 0 in `generate` (findings/transformers-generate-numbers-positions-otherwise.sh).
    "camembert", "data2vec-text", "roberta", "roberta-prelayernorm", "xlm-roberta",
    "xlm-roberta-xl", "xmod",
    # `generate` asks its config how many layers there are, which it does not say.
    "blt",
    # The state that it makes is of another shape than the one it asks for.
    "xlstm",
})  # fmt: skip
"""Classes that are compared with their own forward passes, token by token, instead."""


@torch.no_grad()
def expected_tokens(model: Any, prompt: Sequence[int]) -> list[int]:
    """What `generate` gives, greedily."""
    ids = torch.tensor([prompt])
    if model.config.model_type in OF_FORWARD:
        for _ in range(NUM_NEW):
            logits = model(input_ids=ids, use_cache=False).logits
            ids = torch.cat((ids, logits[:, -1:].argmax(-1)), dim=1)
    else:
        ids = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NUM_NEW,
            eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
    tokens: list[int] = ids[0, len(prompt) :].tolist()
    return tokens


@contextmanager
def _heard() -> Iterator[list[str]]:
    """What the backend logs meanwhile."""
    texts: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: texts.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("trivet.backends.llm.foreign")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield texts
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _said(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    text = lines[-1].strip() if lines else type(error).__name__
    return text.replace("|", "\\|")[:300]


# -- the table -------------------------------------------------------------------------------------


def table(outcomes: Sequence[Outcome]) -> str:
    """The rows, without the markers around them: one for each way, one for each refusal."""
    ways = sorted({outcome.way for outcome in outcomes if outcome.way})
    served = {way: [f"`{each.model_type}`" for each in outcomes if each.way == way] for way in ways}
    rows = [f"| {way} ({len(names)}) | {', '.join(names)} |\n" for way, names in served.items()]
    rows += [
        f"| {REFUSED}{each.refusal} | `{each.model_type}` |\n" for each in outcomes if not each.way
    ]
    return HEAD + "".join(rows)


def written() -> dict[str, Outcome]:
    """What stands in the page, by model_type."""
    rows = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].splitlines()
    found = {}
    for row in rows[2:]:
        said, names = row.strip("| ").rsplit(" | ", 1)
        is_refused = said.startswith(REFUSED)
        for name in names.replace("`", "").split(", "):
            found[name] = (
                Outcome(name, "", said.removeprefix(REFUSED)) if is_refused
                else Outcome(name, said.rpartition(" (")[0])
            )  # fmt: skip
    return found


def write() -> None:
    """Puts the rows between the markers."""
    torch.set_num_threads(1)
    outcomes = []
    for model_type in MODEL_TYPES:
        outcomes.append(outcome_of(model_type))
        print(outcomes[-1], flush=True)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(before + BEGIN + table(outcomes) + END + after, encoding="utf-8")


if __name__ == "__main__":
    write()

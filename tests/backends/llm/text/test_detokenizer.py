"""Text comes out whole however its tokens are split: no half character, no part of a stop text."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from real_engine import needs_weights, real_tokenizer

from trivet.backends.llm.text.detokenizer import REPLACEMENT, Detokenizer, StopMatcher

TEXTS = (
    "Hello, world! ", "héllo ñ ", "你好世界。", "👩\u200d👩\u200d👧\u200d👦", "🎉🚀",
    "e\u0301a\u0308", "नमस्ते", "السلام", "\n\n\t  ", "def f(x):\n    return x\n", "한국어",
)  # fmt: skip
texts = st.lists(st.sampled_from(TEXTS) | st.text(max_size=8), max_size=8).map("".join)


class ByteDecoder:
    """A vocabulary in which each byte is a token: the worst split there is."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        return bytes(token_ids).decode(errors="replace")


def pieces(decoder: object, ids: list[int], sizes: list[int]) -> list[str]:
    """What a detokenizer gives out when so many ids come at a time."""
    detokenizer = Detokenizer(decoder, skip_special_tokens=False)  # type: ignore[arg-type]
    found, start = [], 0
    for size in sizes * (len(ids) + 1):
        if start >= len(ids):
            break
        found.append(detokenizer.push(ids[start : start + size]))
        start += size
    return [*found, detokenizer.flush()]


sizes = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@given(text=texts.filter(lambda text: REPLACEMENT not in text), sizes=sizes)
@settings(max_examples=300, deadline=None)
def test_bytes_come_out_as_the_text_and_never_as_half_a_character(
    text: str, sizes: list[int]
) -> None:
    found = pieces(ByteDecoder(), list(text.encode()), sizes)
    assert not any(REPLACEMENT in piece for piece in found)
    assert "".join(found) == text


@needs_weights
@given(text=texts.filter(lambda text: REPLACEMENT not in text), sizes=sizes)
@settings(max_examples=150, deadline=None)
def test_real_tokens_come_out_as_their_decoded_text(text: str, sizes: list[int]) -> None:
    tokenizer = real_tokenizer()
    ids = tokenizer.encode(text, add_special_tokens=False)
    whole = tokenizer.decode(ids, skip_special_tokens=False)
    found = pieces(tokenizer, ids, sizes)
    assert "".join(found) == whole
    assume(REPLACEMENT not in whole)  # the vocabulary lacks some bytes of unassigned characters
    assert not any(REPLACEMENT in piece for piece in found)


def test_bytes_that_are_no_text_are_shown_at_the_end() -> None:
    assert pieces(ByteDecoder(), list(b"a\xf0\x9f"), [1]) == ["a", "", "", REPLACEMENT]


def streamed(text: str, cuts: list[int], stops: list[str], *, include: bool) -> tuple[str, str]:
    """All that came out, and the stop text that ended it."""
    matcher, out, start = StopMatcher(stops, include=include), "", 0
    for size in cuts * (len(text) + 1):
        if start >= len(text):
            break
        piece, hit = matcher.push(text[start : start + size])
        out += piece
        if hit is not None:
            return out, hit.stop
        start += size
    return out + matcher.flush(), ""


letters = st.text("abc", max_size=24)
stop_texts = st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=4)


@given(text=letters, sizes=sizes, stops=stop_texts)
@settings(max_examples=500, deadline=None)
def test_no_stop_text_leaks_however_the_text_is_split(
    text: str, sizes: list[int], stops: list[str]
) -> None:
    out, stop = streamed(text, sizes, stops, include=False)
    assert text.startswith(out)
    assert not any(each in out for each in stops)
    assert bool(stop) == any(each in text for each in stops)
    if stop:
        assert text.startswith(out + stop)
    else:
        assert out == text


@given(text=letters, sizes=sizes, stops=stop_texts)
@settings(max_examples=300, deadline=None)
def test_result_does_not_depend_on_the_split(text: str, sizes: list[int], stops: list[str]) -> None:
    for include in (False, True):
        split = streamed(text, sizes, stops, include=include)
        assert split == streamed(text, [1], stops, include=include)


@given(text=letters, sizes=sizes, stops=stop_texts)
@settings(max_examples=200, deadline=None)
def test_included_stop_text_ends_the_output(text: str, sizes: list[int], stops: list[str]) -> None:
    out, stop = streamed(text, sizes, stops, include=True)
    assert text.startswith(out)
    assert out.endswith(stop)


@pytest.mark.parametrize(
    ("stops", "wanted"),
    [
        (["World", "lo"], ("Hel", "lo")),  # what ends first
        (["lo W", "o W"], ("Hel", "lo W")),  # at one end, what begins first: the longer
        (["o W", "lo W"], ("Hel", "lo W")),
        (["never"], ("Hello World", "")),
        (["World!"], ("Hello World", "")),  # begun, but never ended
        (["H"], ("", "H")),
    ],
)
@pytest.mark.parametrize("cut", [1, 3, 100])
def test_earliest_stop_wins(stops: list[str], wanted: tuple[str, str], cut: int) -> None:
    assert streamed("Hello World", [cut], stops, include=False) == wanted


def held_off(pieces: list[tuple[str, bool]], stops: list[str]) -> tuple[str, str]:
    """What came out, and the stop text; each piece with whether a stop may not end in it yet."""
    matcher, out = StopMatcher(stops, include=False), ""
    for text, is_barred in pieces:
        piece, hit = matcher.push(text, is_barred=is_barred)
        out += piece
        if hit is not None:
            return out, hit.stop
    return out + matcher.flush(), ""


@pytest.mark.parametrize(
    ("pieces", "stops", "wanted"),
    [
        ([("A", True), ("B", True), ("C", False)], ["B"], ("ABC", "")),  # over before it counts
        ([("A", True), ("B", True), ("CB", False)], ["B"], ("ABC", "B")),
        ([("AB", True), ("C", False)], ["BC"], ("A", "BC")),  # begun before, ended behind
        ([("ABC", True), ("D", False)], ["BC", "BCDE"], ("ABCD", "")),  # held for the longer one
        ([("ABC", True), ("DE", False)], ["BC", "BCDE"], ("A", "BCDE")),
        ([("ABC", True), ("DBC", False)], ["BC", "BCDE"], ("ABCD", "BC")),
    ],
)
def test_stop_text_counts_only_where_it_ends_behind_the_barred_text(
    pieces: list[tuple[str, bool]], stops: list[str], wanted: tuple[str, str]
) -> None:
    assert held_off(pieces, stops) == wanted


@given(barred=letters, text=letters, sizes=sizes, stops=stop_texts)
@settings(max_examples=300, deadline=None)
def test_barred_text_always_comes_out_unless_a_stop_reaches_into_it(
    barred: str, text: str, sizes: list[int], stops: list[str]
) -> None:
    out, stop = held_off([(barred, True), *((each, False) for each in text)], stops)
    whole = barred + text
    ends = [
        place + len(each)
        for each in stops
        for place in range(len(whole))
        if whole.startswith(each, place) and place + len(each) > len(barred)
    ]
    assert bool(stop) == bool(ends)
    assert whole.startswith(out + stop)
    assert not ends or len(out + stop) == min(ends)

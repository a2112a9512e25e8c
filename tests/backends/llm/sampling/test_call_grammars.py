"""Grammars of forced calls: they take what a model's template would write, and nothing else."""

import json
import random
import re
from collections.abc import Sequence
from typing import Any

import pytest
from format_templates import HARMONY, TOOL_TEMPLATES
from scripted_llama import EOS, byte_tokenizer
from tokenizers import AddedToken

from trivet.backends.api import ChatInput, Grammar
from trivet.backends.formats.grammar import Forcing, Tool
from trivet.backends.formats.registry import tool_format
from trivet.backends.llm.sampling.grammar_library import GrammarLibrary
from trivet.backends.llm.text.chat import ChatTemplate

# Names in the order of letters, as some templates write them.
SCHEMAS: dict[str, Any] = {
    "light": {
        "type": "object",
        "properties": {
            "is_on": {"type": "boolean"},
            "label": {"type": "string"},
            "level": {"type": "integer", "minimum": 0, "maximum": 9},
            "room": {"type": "string", "enum": ["hall", "attic"]},
        },
        "required": ["room", "is_on"],
        "additionalProperties": False,
    },
    "now": {"type": "object", "properties": {}, "additionalProperties": False},
    "switch": {
        "type": "object",
        "properties": {"is_on": {"type": "boolean"}, "room": {"enum": ["hall", "attic"]}},
        "required": ["is_on"],
        "additionalProperties": False,
    },
}
USER = {"role": "user", "content": "Light!"}
Calls = list[tuple[str, dict[str, Any]]]
LIGHT = ("light", {"is_on": True, "room": "hall"})
GOOD: list[Calls] = [
    [LIGHT],
    [("now", {})],
    [("light", {"is_on": False, "label": "a 'b' < c\nd", "level": 3, "room": "attic"})],
]
SEVERAL: Calls = [LIGHT, ("now", {}), LIGHT]
BAD: list[Calls] = [
    [("dark", {})],
    [("light", {"is_on": True})],
    [("light", {"is_on": True, "room": "cellar"})],
    [("light", {"is_on": 1, "room": "hall"})],
    [("light", {"is_on": True, "level": 10, "room": "hall"})],
    [("now", {"a": "b"})],
]
MARK = re.compile(r"</?[^<>\s]+>|\[[A-Z_]{4,}\]")
# Every format with tokens for its marks, and of each way to write arguments one without.
MODELS = [(name, True) for name in TOOL_TEMPLATES]
MODELS += [(name, False) for name in ("hermes", "deepseek_v3", "qwen3_coder", "lfm2", "gemma4")]


class Model:
    """A byte tokenizer with a format's marks as tokens, or without."""

    def __init__(self, name: str, *, has_tokens: bool) -> None:
        form = tool_format(name.partition(" ")[0])
        assert form is not None
        self.form = form
        self.template = HARMONY if name == "openai" else TOOL_TEMPLATES[name]
        self._tokenizer = byte_tokenizer()
        if has_tokens:
            found = MARK.findall(self.form.shown + self.template)
            marks = sorted({mark for mark in found if not mark.startswith("<function=")})
            self._tokenizer.add_special_tokens([AddedToken(mark, special=True) for mark in marks])
        size = self._tokenizer.get_vocab_size()
        self._library = GrammarLibrary(self._tokenizer.to_str(), EOS, size)

    def constraint(
        self, *, is_single: bool = False, only: str = "", tools: Sequence[Tool] = ()
    ) -> Any:
        known = [Tool(each, schema) for each, schema in SCHEMAS.items() if only in ("", each)]
        forcing = Forcing(tools or known, is_single, self.template)
        start = self.form.force(forcing)
        assert start is not None
        return self._library.constraint(Grammar("calls", forcing.value(start), "tools"))

    def takes(self, text: str, **wishes: Any) -> bool:
        """Whether an output may be this and no more."""
        constraint = self.constraint(**wishes)
        for token in self._tokenizer.encode(text, add_special_tokens=False).ids:
            if not constraint.mask()[token]:
                return False
            constraint.accept(token)
        return bool(constraint.mask()[EOS])

    def answer(self, calls: list[tuple[str, dict[str, Any]]]) -> str:
        """As the template writes it."""
        told = [{"function": {"name": name, "arguments": given}} for name, given in calls]
        message = {"role": "assistant", "content": "", "tool_calls": told}
        chat = ChatTemplate(self.template, {})
        tools: list[Any] = [{"function": {"name": "f"}}]
        asked = chat.render(ChatInput([USER], tools=tools))
        whole = chat.render(ChatInput([USER, message], tools=tools, add_generation_prompt=False))
        return whole[len(asked) :].removesuffix("[end]\n")

    def walk(self, chance: random.Random) -> str:
        """An output of random tokens that ends as soon as it may."""
        constraint = self.constraint(is_single=True, only="switch")
        ids: list[int] = []
        while not (mask := constraint.mask())[EOS]:
            ids.append(chance.choice(mask.nonzero().flatten().tolist()))
            constraint.accept(ids[-1])
            assert len(ids) < 1000
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))


@pytest.fixture(scope="module", params=MODELS, ids=lambda each: " ".join(map(str, each)))
def model(request: pytest.FixtureRequest) -> Model:
    name, has_tokens = request.param
    return Model(name, has_tokens=has_tokens)


def test_what_a_template_writes_is_taken(model: Model) -> None:
    for calls in GOOD:
        assert model.takes(model.answer(calls)), calls


def test_what_fits_no_function_is_not(model: Model) -> None:
    for calls in BAD:
        assert not model.takes(model.answer(calls)), calls
    assert not model.takes("Hello.")


def test_several_calls_are_taken_unless_one_is_asked_for(model: Model) -> None:
    text = model.answer(SEVERAL)
    assert model.takes(text)
    assert not model.takes(text, is_single=True)
    assert model.takes(model.answer(SEVERAL[:1]), is_single=True)


def test_named_function_is_the_only_one(model: Model) -> None:
    assert model.takes(model.answer([("now", {})]), only="now", is_single=True)
    assert not model.takes(model.answer([LIGHT]), only="now", is_single=True)


def test_whatever_a_grammar_lets_out_is_read_as_a_valid_call(model: Model) -> None:
    for seed in range(2):
        text = model.walk(random.Random(seed))
        reader = model.form.reader(SCHEMAS)
        pieces = reader.push(text) + reader.flush()
        assert [piece.name for piece in pieces if piece.name] == ["switch"], text
        told = json.loads("".join(piece.text for piece in pieces))
        assert told["is_on"] in (True, False)
        assert told.get("room", "hall") in ("hall", "attic")


def test_calls_of_harmony_are_taken_behind_thoughts_and_without() -> None:
    model = Model("openai", has_tokens=True)
    assert all(model.takes(model.answer(calls)) for calls in GOOD)
    assert not any(model.takes(model.answer(calls)) for calls in BAD)
    thought = "<|channel|>analysis<|message|>Let me see.<|end|><|start|>assistant"
    call = "<|channel|>commentary to=functions.now <|constrain|>json<|message|>{}<|call|>"
    assert model.takes(thought + call)
    assert not model.takes("<|channel|>final<|message|>No.<|end|>")


@pytest.mark.parametrize(
    ("schema", "is_written"),
    [
        ({"type": "string", "minLength": 2, "maxLength": 3}, True),
        ({"type": "string", "pattern": "^[a-c]+$"}, True),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, True),
        ({"$ref": "#/$defs/d"}, True),
        ({"type": "string", "format": "date"}, False),
        ({"anyOf": [{"type": "string"}, {"type": "integer", "maximum": 5}]}, False),
        ({"type": "array", "items": {"$ref": "#/properties/a"}}, False),
    ],
)
def test_schemas_that_mark_up_cannot_hold_to_are_left_to_json(
    schema: dict[str, Any], is_written: bool
) -> None:
    whole = {"type": "object", "properties": {"a": schema}, "$defs": {"d": {"type": "integer"}}}
    form = tool_format("glm45")
    assert form is not None
    start = form.force(Forcing([Tool("f", whole)], is_single=True))
    assert (start is not None) is is_written


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "string", "minLength": 2, "maxLength": 3}, "ab", "abcd"),
        ({"type": "string", "pattern": "^[a-c]+$"}, "abba", "abd"),
        ({"type": "integer", "maximum": 5}, "4", "x"),
    ],
)
@pytest.mark.parametrize("has_tokens", [True, False])
def test_texts_of_mark_up_hold_to_their_schemas(
    schema: dict[str, Any], good: str, bad: str, has_tokens: bool
) -> None:
    model = Model("qwen3_coder", has_tokens=has_tokens)
    tool = Tool("f", {"type": "object", "properties": {"a": schema}, "required": ["a"]})
    for text, is_taken in ((good, True), (bad, False)):
        output = (
            f"<tool_call>\n<function=f>\n<parameter=a>\n{text}\n</parameter>\n</function>\n"
            "</tool_call>"
        )
        assert model.takes(output, tools=[tool]) is is_taken


@pytest.mark.parametrize(
    ("mark", "is_special"),
    [("<tool_call>", False), ("<tool_call>", True), ("[TOOL_CALLS]", True), ("[TOOL_CALLS]", False),
     ("tool:", None)],
)  # fmt: skip
def test_tags_are_written_with_the_tokens_that_the_model_has_for_their_marks(
    mark: str, is_special: bool | None
) -> None:
    tokenizer = byte_tokenizer()
    end = mark.replace("<", "</")
    if is_special is not None:
        tokens = [AddedToken(each, special=is_special, normalized=False) for each in {mark, end}]
        add = tokenizer.add_special_tokens if is_special else tokenizer.add_tokens
        add(tokens)
    library = GrammarLibrary(tokenizer.to_str(), EOS, tokenizer.get_vocab_size())
    tags = [[mark, f"{mark}\n", {"enum": [17]}, end]]

    def takes(text: str) -> bool:
        constraint = library.constraint(Grammar("structural_tag", json.dumps(tags), "tags"))
        for token in tokenizer.encode(text, add_special_tokens=False).ids:
            if not constraint.mask()[token]:
                return False
            constraint.accept(token)
        return bool(constraint.mask()[EOS])

    assert takes("No.")
    assert takes(f"So: {mark}\n17{end} and {mark}\n17{end}")
    assert not takes(f"So: {mark}\n18{end}")
    assert not takes(f"So: {mark}\n17")

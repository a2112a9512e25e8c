"""The fields of TEI's requests; and those of Hugging Face's pipelines, whose clients send them to
the same place."""

from typing import Any, Literal

from pydantic import Field

from trivet.backends.api import InvalidRequest, ParameterValue
from trivet.server.http.encoding.asking import MAX_ITEMS, Item, Question
from trivet.server.http.openai.fields import Fields, Listed, TokenId
from trivet.server.http.openai.fields import parse as parse_fields
from trivet.server.http.tei.errors import Empty, Unreadable

_Pair = Listed[str]
"""One text or two."""


class TeiFields(Fields):
    """What all of them have."""

    model: str | None = None
    """TEI serves one model; here a request may name it."""
    truncate: bool | None = None
    truncation_direction: Literal["Left", "Right", "left", "right"] | None = None
    prompt_name: str | None = None

    def question(self, *outputs: str, **more: ParameterValue | None) -> Question:
        """What is asked of the model."""
        direction = self.truncation_direction
        given: dict[str, ParameterValue | None] = {
            "truncate": self.truncate,
            "truncation_direction": None if direction is None else direction.lower(),
            "prompt_name": self.prompt_name,
            **more,
        }
        return Question(outputs, {k: v for k, v in given.items() if v is not None})


class EmbedFields(TeiFields):
    """The body of /embed and /embed_all."""

    inputs: str | Listed[str] | Listed[TokenId] | Listed[Listed[TokenId]]
    normalize: bool = True
    dimensions: int | None = Field(default=None, ge=1)

    def items(self) -> list[Item]:
        """Raises Empty, InvalidRequest."""
        given: list[Any] = [self.inputs] if isinstance(self.inputs, str) else list(self.inputs)
        numbers = [each for each in given if isinstance(each, int)]
        given = _counted([numbers] if numbers else given, "inputs")
        return [_item(each) for each in given]


class PredictFields(TeiFields):
    """The body of /predict: a text, a pair, or lists of them."""

    inputs: str | Listed[str] | Listed[_Pair]
    raw_scores: bool = False
    parameters: dict[str, Any] | None = None
    """Of Hugging Face's pipelines, which answer a list of lists even for one text."""

    @property
    def is_single(self) -> bool:
        """Whether the answer is that of one text or pair."""
        return isinstance(self.inputs, str) or all(isinstance(each, str) for each in self.inputs)

    def items(self) -> list[Item]:
        """Raises Empty, Unreadable."""
        if isinstance(self.inputs, str):
            return [_item(self.inputs)]
        given = _counted(list(self.inputs), "inputs")
        return [_pair(given)] if self.is_single else [_pair(each) for each in given]

    def pipeline_items(self) -> list[Item]:
        """As pipelines read them, to whom a list of texts is no pair. Raises Empty, Unreadable."""
        if isinstance(self.inputs, str) or not self.is_single:
            return self.items()
        return [_item(each) for each in _counted(list(self.inputs), "inputs")]


class RerankFields(TeiFields):
    """The body of /rerank, TEI's form."""

    query: str
    texts: Listed[str]
    raw_scores: bool = False
    return_text: bool = False


class SimilarityInputs(Fields):
    """A sentence, and those that it is compared with."""

    source_sentence: str
    sentences: Listed[str]


class SimilarityParameters(Fields):
    """As TEI nests them here."""

    truncate: bool | None = None
    truncation_direction: Literal["Left", "Right", "left", "right"] | None = None
    prompt_name: str | None = None


class SimilarityFields(Fields):
    """The body of /similarity."""

    model: str | None = None
    inputs: SimilarityInputs
    parameters: SimilarityParameters | None = None

    def question(self) -> Question:
        """See TeiFields."""
        given = self.parameters or SimilarityParameters()
        return TeiFields(**given.model_dump()).question()


class TokenizeFields(Fields):
    """The body of /tokenize, TEI's form."""

    model: str | None = None
    inputs: str | Listed[str]
    add_special_tokens: bool = True
    prompt_name: str | None = None


class AnyFields(Fields):
    """The body of POST /: that of /embed, /predict, /rerank or /similarity, by the model."""

    model: str | None = None
    inputs: Any = None
    query: str | None = None
    parameters: dict[str, Any] | None = None
    stream: bool = False


def texts_of(given: str | list[str], name: str = "inputs") -> list[str]:
    """One text or several. Raises Empty, InvalidRequest."""
    return _counted([given] if isinstance(given, str) else given, name)


def parse(kind: type[Fields], body: bytes | memoryview) -> Any:
    """The body's fields. Raises Unreadable with each wrong field and what it must be."""
    try:
        return parse_fields(kind, body)
    except InvalidRequest as error:
        raise Unreadable(error.message) from None


def _counted(given: list[Any], name: str) -> list[Any]:
    if not given:
        raise Empty(f"`{name}` cannot be empty")
    if len(given) > MAX_ITEMS:
        raise InvalidRequest(
            f"batch size {len(given)} > maximum allowed batch size {MAX_ITEMS} ({name})"
        )
    return given


def _item(given: str | list[int]) -> Item:
    if not given:
        raise Empty("`inputs` cannot be empty")
    return Item(given) if isinstance(given, str) else Item(ids=tuple(given))


def _pair(given: list[str]) -> Item:
    if not 1 <= len(given) <= 2:
        raise Unreadable(f"inputs: a list of {len(given)} texts; 1 or 2 make one input")
    return Item(given[0], given[1] if len(given) == 2 else None)

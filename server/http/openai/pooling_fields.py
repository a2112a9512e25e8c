"""The fields of vLLM's requests for embeddings, classes, scores and ranks."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field

from trivet.backends.api import InvalidRequest, ParameterValue
from trivet.server.http.encoding.asking import MAX_ITEMS, Item, Question
from trivet.server.http.openai.fields import Count, Fields, Listed, TokenId

Texts = str | Listed[str]
Inputs = str | Listed[str] | Listed[TokenId] | Listed[Listed[TokenId]]
Document = str | dict[str, Any]


class EncoderFields(Fields):
    """What all of them have."""

    model: str | None = None
    user: str | None = None
    priority: Count = 0
    truncate_prompt_tokens: Annotated[int, Field(ge=-1)] | None = None
    """-1: to as many as the model takes."""
    truncation_side: Literal["left", "right"] | None = None
    add_special_tokens: bool = True
    prompt_name: str | None = None
    use_activation: bool | None = None
    """Of scores: whether they are made numbers from 0 to 1; of vectors: whether of length 1."""

    def question(self, *outputs: str) -> Question:
        """What is asked of the model. Raises InvalidRequest."""
        given: dict[str, ParameterValue] = {}
        limit = self.truncate_prompt_tokens
        if limit == 0:
            raise InvalidRequest("truncate_prompt_tokens: it is 0; at least 1 is needed, or -1")
        if limit is not None:
            given["truncate"] = True
            if limit > 0:
                given["max_tokens"] = limit
        if self.truncation_side is not None:
            given["truncation_direction"] = self.truncation_side
        if not self.add_special_tokens:
            given["add_special_tokens"] = False
        if self.prompt_name is not None:
            given["prompt_name"] = self.prompt_name
        return Question(outputs, given, self.priority)


class InputFields(EncoderFields):
    """Texts, or token ids."""

    input: Inputs

    def items(self) -> list[Item]:
        """Raises InvalidRequest."""
        return items_of(self.input)

    def vector_question(self, output: str, dimensions: int | None = None) -> Question:
        """What is asked for vectors, which may be cut and made of length 1."""
        question = self.question(output)
        given = {"normalize": self.use_activation, "dimensions": dimensions}
        wished = {name: value for name, value in given.items() if value is not None}
        return replace(question, parameters={**question.parameters, **wished})


def items_of(given: Inputs) -> list[Item]:
    """Texts, or token ids, as items. Raises InvalidRequest."""
    texts: list[Any] = [given] if isinstance(given, str) else list(given)
    # A list of numbers is one input. Nothing else is in a list that has any.
    numbers = [each for each in texts if isinstance(each, int)]
    texts = [numbers] if numbers else texts
    if not 1 <= len(texts) <= MAX_ITEMS:
        raise InvalidRequest(f"input: {len(texts)} inputs; 1 to {MAX_ITEMS} may be")
    for index, each in enumerate(texts):
        if not each:
            raise InvalidRequest(f"input[{index}]: it is empty")
    return [Item(e) if isinstance(e, str) else Item(ids=tuple(e)) for e in texts]


class PoolingFields(InputFields):
    """The body of /pooling."""

    task: Literal["embed", "classify", "token_embed", "token_classify", "score"] | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None


class ClassifyFields(InputFields):
    """The body of /classify."""


class ScoreFields(EncoderFields):
    """The body of /score: two texts or lists, under the names of any of vLLM's forms."""

    text_1: Texts | None = None
    text_2: Texts | None = None
    queries: Texts | None = None
    documents: Texts | None = None
    items: Texts | None = None
    data_1: Texts | None = None
    data_2: Texts | None = None

    def pairs(self) -> list[tuple[str, str]]:
        """One first text with each second one, or one with one. Raises InvalidRequest."""
        firsts = self._texts("text_1", self.text_1, self.queries, self.data_1)
        seconds = self._texts("text_2", self.text_2, self.documents, self.items, self.data_2)
        if len(firsts) == 1:
            firsts = firsts * len(seconds)
        if len(firsts) != len(seconds):
            raise InvalidRequest(
                f"text_1: {len(firsts)} texts beside {len(seconds)} of text_2; give one, or as many"
            )
        return list(zip(firsts, seconds, strict=True))

    def _texts(self, name: str, *forms: Texts | None) -> list[str]:
        given = [each for each in forms if each is not None]
        if len(given) != 1:
            raise InvalidRequest(f"{name}: give it, once, under one of its names")
        texts = [given[0]] if isinstance(given[0], str) else list(given[0])
        if not 1 <= len(texts) <= MAX_ITEMS:
            raise InvalidRequest(f"{name}: {len(texts)} texts; 1 to {MAX_ITEMS} may be")
        return texts


class RerankFields(EncoderFields):
    """The body of /rerank, vLLM's, Jina's and Cohere's form."""

    query: str
    documents: Listed[Document]
    top_n: Count = 0
    """0: all."""
    return_documents: bool | None = None

    def texts(self) -> list[str]:
        """Of the documents. Raises InvalidRequest."""
        if not 1 <= len(self.documents) <= MAX_ITEMS:
            count = len(self.documents)
            raise InvalidRequest(f"documents: {count} documents; 1 to {MAX_ITEMS} may be")
        return [_text(index, each) for index, each in enumerate(self.documents)]


def _text(index: int, document: Document) -> str:
    if isinstance(document, str):
        return document
    text = document.get("text")
    if not isinstance(text, str):
        raise InvalidRequest(f"documents[{index}].text: it must be a text")
    return text

"""What all requests of the language APIs share: strict fields, and errors that name the wrong one.

Unknown fields are ignored, as OpenAI's clients expect. Known ones that are not offered are refused.
"""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trivet.backends.api import InvalidRequest
from trivet.server.http.openai.refusals import refuse_known

_MAX_TOLD_ERRORS = 10
_MAX_TOLD_CHARACTERS = 200

R = TypeVar("R", bound=BaseModel)
CONTINUES_AND_ADDS = "continue_final_message: it is not allowed together with add_generation_prompt"
T = TypeVar("T")
Count = Annotated[int, Field(ge=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Listed = Annotated[list[T], Field(fail_fast=True)]
"""A list that is given up at its first wrong item: pydantic would keep a kilobyte for each."""
TokenId = Annotated[int, Field(ge=0, strict=True)]


class Fields(BaseModel):
    """Base: strict about types, easy about unknown names."""

    model_config = ConfigDict(extra="ignore", strict=True)


class TokenizeFields(Fields):
    """The body of /tokenize, vLLM's form."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[Listed[dict[str, Any]], Field(min_length=1)] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    return_token_strs: bool = False
    tools: Listed[dict[str, Any]] | None = None
    documents: Listed[dict[str, Any]] | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    def check(self) -> None:
        """What no single field can say. Raises InvalidRequest, Unsupported."""
        refuse_known({"chat_template": self.chat_template})
        if self.continue_final_message and self.add_generation_prompt:
            raise InvalidRequest(CONTINUES_AND_ADDS)


class DetokenizeFields(Fields):
    """The body of /detokenize."""

    model: str | None = None
    tokens: Listed[TokenId]


def parse(
    kind: type[R], body: bytes | memoryview, forms: Mapping[int | str, str] | None = None
) -> R:
    """The body's fields. Raises InvalidRequest with each wrong field and what it must be; `forms`
    says that of fields that may be one of several things, where another API has its own."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the request body is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidRequest("the request body must be a JSON object")
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise InvalidRequest(told(error, forms)) from None


def told(error: ValidationError, forms: Mapping[int | str, str] | None = None) -> str:
    """Each wrong field and what it must be."""
    forms = forms or _ONE_OF_SEVERAL
    lines: list[str] = []
    for each in error.errors(include_url=False, include_context=False)[:_MAX_TOLD_ERRORS]:
        field = each["loc"][0] if each["loc"] else ""
        if field in forms and each["type"] != "missing":
            # Each form has complained, though at most one was meant.
            text = f"{field}: it must be {forms[field]}"
            lines += [text] * (text not in lines)
            continue
        place = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}"
            for part in each["loc"]
            if isinstance(part, int) or part.replace("_", "").isalnum()
        ).lstrip(".")
        value = each.get("input")
        shown = f" (got {str(value)[:60]!r})" if isinstance(value, int | float | str) else ""
        lines.append(f"{place}: {each['msg']}{shown}"[:_MAX_TOLD_CHARACTERS])
    return "; ".join(lines)


_TEXTS_OR_IDS = "a text, a list of texts, a list of token ids (0 or more), or a list of such lists"
_ONE_OF_SEVERAL: dict[int | str, str] = {
    "prompt": _TEXTS_OR_IDS,
    "input": _TEXTS_OR_IDS,
    "stop": "a text or a list of texts",
    "tool_choice": "none, auto, required or an object that names a function",
}

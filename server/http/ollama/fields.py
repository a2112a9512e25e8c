"""The bodies of Ollama's routes."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from trivet.server.http.openai.embeddings import MAX_DIMENSIONS
from trivet.server.http.openai.fields import Fields, Finite, Listed
from trivet.server.http.openai.refusals import Refusals, refuse_known
from trivet.server.http.openai.tools import ToolFields

MAX_STOPS = 16
Image = Annotated[str, Field(min_length=1)]
Think = bool | Literal["low", "medium", "high"] | None
Format = dict[str, Any] | Literal["json", ""] | None

_REFUSED_OPTIONS: Refusals = {
    "mirostat": (0, ""),
    "typical_p": (1, ""),
    "tfs_z": (1, ""),
}
"""Options that choose tokens in a way that is not here. All others say how a model is loaded, which
its config does here."""
_REFUSED: Refusals = {
    "template": ("", ", for a template is code; the model's own is used"),
    "context": ([], "; send the conversation to /api/chat"),
    "logprobs": (None, "; /v1/chat/completions tells them"),
    "top_logprobs": (0, "; /v1/chat/completions tells them"),
}


class OptionFields(Fields):
    """How tokens are chosen."""

    model_config = ConfigDict(extra="allow", strict=True)

    temperature: Annotated[Finite, Field(ge=0, le=2)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    top_p: Annotated[Finite, Field(gt=0, le=1)] | None = None
    min_p: Annotated[Finite, Field(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[Finite, Field(gt=0, le=100)] | None = None
    presence_penalty: Annotated[Finite, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[Finite, Field(ge=-2, le=2)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    num_predict: Annotated[int, Field(ge=-2)] | None = None
    """-1 and -2: as many as fit."""
    stop: str | Annotated[Listed[str], Field(max_length=MAX_STOPS)] | None = None

    def sampling(self) -> dict[str, Any]:
        """As fields of the chats that all APIs share. Raises Unsupported."""
        refuse_known(self.model_extra or {}, _REFUSED_OPTIONS)
        limit = self.num_predict
        return {
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "repetition_penalty": self.repeat_penalty,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "seed": self.seed,
            "max_tokens": None if limit is None or limit < 0 else limit,
            "stop": self.stop,
        }


class ModelFields(Fields):
    """What names a model; how long it stays in memory, the server's options say here."""

    model: Annotated[str, Field(min_length=1)]


class AskFields(ModelFields):
    """What chats and prompts share."""

    model_config = ConfigDict(extra="allow", strict=True)

    stream: bool = True
    format: Format = None
    options: OptionFields | None = None
    think: Think = None

    def check(self) -> None:
        """Raises Unsupported."""
        refuse_known(self.model_extra or {}, _REFUSED)

    def sampling(self) -> dict[str, Any]:
        """See OptionFields."""
        return (self.options or OptionFields()).sampling()


class OllamaMessageFields(Fields):
    """One of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    thinking: str | None = None
    images: Listed[Image] | None = None
    tool_calls: Listed[dict[str, Any]] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class OllamaChatFields(AskFields):
    """The body of /api/chat."""

    messages: Listed[OllamaMessageFields] = Field(default_factory=list)
    tools: Listed[ToolFields] | None = None


class OllamaPromptFields(AskFields):
    """The body of /api/generate."""

    prompt: str = ""
    system: str = ""
    images: Listed[Image] | None = None
    raw: bool = False


class OllamaEmbedFields(ModelFields):
    """The body of /api/embed."""

    input: str | Listed[str]
    truncate: bool = True
    dimensions: Annotated[int, Field(ge=0, le=MAX_DIMENSIONS)] | None = None


class OllamaEmbeddingsFields(ModelFields):
    """The body of /api/embeddings, its older form."""

    prompt: str


class OllamaShowFields(Fields):
    """The body of /api/show."""

    model: str = ""
    name: str = ""
    """What `model` was called before."""

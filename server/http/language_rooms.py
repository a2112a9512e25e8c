"""The rooms of the language APIs that read bodies, put together. Importing it imports pydantic and
builds the models of all their fields, a tenth of a second that other servers never need."""

from dataclasses import dataclass

from trivet.server.core import Core
from trivet.server.http.anthropic.messages import Messages
from trivet.server.http.limits import HttpLimits
from trivet.server.http.ollama.handlers import Ollama
from trivet.server.http.openai.adapters import Adapters
from trivet.server.http.openai.chat import Chat
from trivet.server.http.openai.completions import Completions
from trivet.server.http.openai.embeddings import Embeddings
from trivet.server.http.openai.pooling import Pooling
from trivet.server.http.openai.responses.handlers import Responses
from trivet.server.http.openai.tokens import Tokens
from trivet.server.http.routes import Handler
from trivet.server.http.shared_paths import SharedPaths
from trivet.server.http.tei.about import TeiAbout
from trivet.server.http.tei.texts import TeiTexts
from trivet.server.http.tgi.about import About
from trivet.server.http.tgi.generate import TgiGenerate


@dataclass(frozen=True, slots=True)
class LanguageRooms:
    """One of each."""

    chat: Chat
    responses: Responses
    messages: Messages
    completions: Completions
    embeddings: Embeddings
    tokens: Tokens
    pooling: Pooling
    adapters: Adapters
    generate: TgiGenerate
    about: About
    texts: TeiTexts
    ollama: Ollama
    root: Handler
    info: Handler

    @classmethod
    def make(cls, core: Core, limits: HttpLimits) -> "LanguageRooms":
        """Over the models of a core."""
        about, generate = About(core, limits), TgiGenerate(core, limits)
        texts = TeiTexts(core, limits)
        embeddings = Embeddings(core, limits)
        shared = SharedPaths(core, limits, texts, TeiAbout(core))
        return cls(
            Chat(core, limits),
            Responses(core, limits),
            Messages(core, limits),
            Completions(core, limits),
            embeddings,
            Tokens(core, limits, shared.tokenize(about.tokenize)),
            Pooling(core, limits, texts.rerank),
            Adapters(core, limits),
            generate,
            about,
            texts,
            Ollama(core, limits, embeddings),
            shared.root(generate.either),
            shared.info(about.info),
        )

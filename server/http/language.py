"""The routes of the language APIs: OpenAI's with vLLM's, Anthropic's, TGI's, TEI's and
Ollama's."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from trivet.server.auth.restricted import Api
from trivet.server.auth.scopes import Scope
from trivet.server.core import Core
from trivet.server.http.anthropic import errors as anthropic_errors
from trivet.server.http.anthropic.models import AnthropicModels, by_version
from trivet.server.http.later import Later
from trivet.server.http.limits import HttpLimits
from trivet.server.http.ollama import errors as ollama_errors
from trivet.server.http.ollama.about import OllamaAbout
from trivet.server.http.openai import errors as openai_errors
from trivet.server.http.openai.models import Models
from trivet.server.http.openai.prefix_caches import PrefixCaches
from trivet.server.http.openai.sleeping import SleepRoutes
from trivet.server.http.operations import (
    ANTHROPIC,
    ARRAY,
    EVENTS,
    NDJSON,
    NUMBERS,
    OBJECT,
    OLLAMA,
    OPENAI,
    TEI,
    TGI,
    Operation,
)
from trivet.server.http.routes import Handler, Route
from trivet.server.http.tei import errors as tei_errors
from trivet.server.http.tgi import errors as tgi_errors
from trivet.server.http.tgi.probes import Probes

if TYPE_CHECKING:
    from trivet.server.http.language_rooms import LanguageRooms

_COMPLETION_FIELDS = "openai.sampling_fields:CompletionFields"
_CHAT = Operation(
    OPENAI, "Go on in a conversation", "openai.chat_fields:ChatFields", OBJECT, (EVENTS,)
)
_RESPONSE_FIELDS = "openai.responses.fields:ResponseFields"
_RESPOND = Operation(OPENAI, "A response to an input", _RESPONSE_FIELDS, OBJECT, (EVENTS,))
_COUNT_INPUT = Operation(OPENAI, "An input's tokens", "openai.responses.fields:AskedFields")
_RESPONSE = Operation(
    OPENAI, "A response that was made before", media=(EVENTS,),
    query={"stream": {"type": "boolean"}, "starting_after": {"type": "integer", "minimum": 0}},
)  # fmt: skip
_FORGET = Operation(OPENAI, "Keep it no more")
_CANCEL = Operation(OPENAI, "End it, where it runs in the background")
_ITEMS = Operation(
    OPENAI, "What it was given",
    query={
        "limit": {"type": "integer", "minimum": 1, "maximum": 100},
        "order": {"enum": ["asc", "desc"]},
        "after": {"type": "string"},
    },
)  # fmt: skip
_MESSAGE = Operation(
    ANTHROPIC, "Go on in a conversation", "anthropic.fields:MessagesFields", OBJECT, (EVENTS,)
)
_COUNT = Operation(ANTHROPIC, "The tokens of one", "anthropic.fields:CountFields")
_COMPLETE = Operation(OPENAI, "Go on with a text", _COMPLETION_FIELDS, OBJECT, (EVENTS,))
_EMBED = Operation(OPENAI, "Texts to vectors", "openai.embeddings:EmbeddingFields")
_MODELS = Operation(OPENAI, "The language models")
_MODEL = Operation(OPENAI, "One of them")
_TOKENIZE = Operation(OPENAI, "A text's tokens", "openai.fields:TokenizeFields", {})
_DETOKENIZE = Operation(OPENAI, "The text of tokens", "openai.fields:DetokenizeFields")
_TOKENIZER = Operation(OPENAI, "The tokenizer's settings")
_VERSION = Operation(OPENAI, "The server's version")
_RESET = Operation(OPENAI, "Forget what prompts begin with", answer=None)
_SLEEP = Operation(OPENAI, "Free the memory of models", answer=None)
_WAKE = Operation(OPENAI, "Have models compute again", answer=None)
_IS_SLEEPING = Operation(OPENAI, "Whether models sleep")
_LOAD = Operation(OPENAI, "Requests in progress")
_LOAD_ADAPTER = Operation(
    OPENAI, "Serve an adapter of a base's folder", "openai.adapters:LoadAdapterFields", None
)
_UNLOAD_ADAPTER = Operation(
    OPENAI, "Serve an adapter no more", "openai.adapters:UnloadAdapterFields", None
)

_POOL = Operation(OPENAI, "What a model makes of texts", "openai.pooling_fields:PoolingFields")
_CLASSIFY = Operation(OPENAI, "Texts to labels", "openai.pooling_fields:ClassifyFields")
_SCORE = Operation(OPENAI, "Pairs of texts to scores", "openai.pooling_fields:ScoreFields")
_RERANK = Operation(
    OPENAI, "Documents in the order of a query; with `texts`, TEI's form",
    "openai.pooling_fields:RerankFields", {},
)  # fmt: skip

_EMBED_TEXTS = Operation(TEI, "A vector for each text", "tei.fields:EmbedFields", ARRAY)
_EMBED_TOKENS = Operation(TEI, "A vector for each token", "tei.fields:EmbedFields", ARRAY)
_PREDICT = Operation(TEI, "Labels with their scores", "tei.fields:PredictFields", ARRAY)
_SIMILARITY = Operation(TEI, "How alike texts are", "tei.fields:SimilarityFields", ARRAY)

_TGI_FIELDS = "tgi.fields:GenerateFields"
_WHOLE = Operation(TGI, "Go on with a text", _TGI_FIELDS)
_STREAM = Operation(TGI, "The same, tokens as events", _TGI_FIELDS, None, (EVENTS,))
_EITHER = Operation(
    TGI, "One of the two, by `stream`; an image's labels", _TGI_FIELDS, ARRAY, (EVENTS,), (NUMBERS,)
)  # fmt: skip
_INFO = Operation(TGI, "The model and its limits")
_PROBE = Operation("health", "For load balancers", answer=None)
_CHAT_TOKENIZE = Operation(TGI, "A conversation's tokens", "tgi.fields:ChatTokenizeFields")
_OLLAMA_CHAT = Operation(
    OLLAMA, "Go on in a conversation", "ollama.fields:OllamaChatFields", OBJECT, (NDJSON,)
)
_OLLAMA_GENERATE = Operation(
    OLLAMA, "Answer a prompt", "ollama.fields:OllamaPromptFields", OBJECT, (NDJSON,)
)
_OLLAMA_EMBED = Operation(OLLAMA, "Texts to vectors", "ollama.fields:OllamaEmbedFields")
_OLLAMA_EMBEDDINGS = Operation(OLLAMA, "A text to a vector", "ollama.fields:OllamaEmbeddingsFields")
_OLLAMA_TAGS = Operation(OLLAMA, "The models of texts")
_OLLAMA_PS = Operation(OLLAMA, "Those in memory")
_OLLAMA_SHOW = Operation(OLLAMA, "What one of them is", "ollama.fields:OllamaShowFields")
_OLLAMA_VERSION = Operation(OLLAMA, "The server's version")
_METRICS = Operation("metrics", "Prometheus's page", answer=None, media=("text/plain",))


class Language:
    """Handlers that read bodies are made when one is asked for the first time."""

    def __init__(self, core: Core, limits: HttpLimits) -> None:
        self._core = core
        self._limits = limits
        self._rooms = Later(self._make)
        self._models = Models(core)
        self._anthropic_models = AnthropicModels(core)
        self._probes = Probes(core)
        self._ollama_about = OllamaAbout(core, limits)
        self._sleep = SleepRoutes(core)

    async def prepare(self) -> None:
        """Makes them now where there is a model for them: its first client need not wait."""
        core = self._core
        if core.generators() or core.encoders() or core.image_classifiers():
            await self._rooms.get()

    def leave(self, timeout_s: float) -> None:
        """No more requests come: what nobody waits for ends, the rest within that time."""
        if self._rooms.made is not None:
            self._rooms.made.responses.leave(timeout_s)

    async def close(self) -> None:
        """Ends what runs without a client."""
        if self._rooms.made is not None:
            await self._rooms.made.responses.close()

    def routes(self) -> list[Route]:
        return [
            *_answering(openai_errors.answers_errors, self._openai()),
            *_answering(openai_errors.answers_errors, self._responses()),
            *_answering(anthropic_errors.answers_errors, self._anthropic()),
            *_answering(tgi_errors.answers_errors, self._tgi()),
            *_answering(tei_errors.answers_errors, self._tei()),
            *_answering(ollama_errors.answers_errors, self._ollama()),
        ]

    def _openai(self) -> list[Route]:
        rooms, models = self._rooms, self._models
        listed = by_version(models.list, self._anthropic_models.list)
        one = by_version(models.one, self._anthropic_models.one)
        chat = rooms.handler(lambda made: made.chat.complete)
        complete = rooms.handler(lambda made: made.completions.complete)
        embed = rooms.handler(lambda made: made.embeddings.embed)
        tokenize = rooms.handler(lambda made: made.tokens.tokenize)
        detokenize = rooms.handler(lambda made: made.tokens.detokenize)
        infer, any_key, inference = Scope.INFER, Scope.ANY, Api.INFERENCE
        admin, api = Scope.ADMIN, Api.MODEL_REPOSITORY
        settings = models.tokenizer_info
        pool = rooms.handler(lambda made: made.pooling.pool)
        classify = rooms.handler(lambda made: made.pooling.classify)
        score = rooms.handler(lambda made: made.pooling.score)
        rerank = rooms.handler(lambda made: made.pooling.rerank)
        cohere_rerank = rooms.handler(lambda made: made.pooling.cohere_rerank)
        load = rooms.handler(lambda made: made.adapters.load)
        unload = rooms.handler(lambda made: made.adapters.unload)
        admin, repository = Scope.ADMIN, Api.MODEL_REPOSITORY
        reset = PrefixCaches(self._core).reset
        return [
            Route("POST", "/v1/chat/completions", chat, infer, inference, _CHAT),
            Route("POST", "/v1/completions", complete, infer, inference, _COMPLETE),
            Route("POST", "/v1/embeddings", embed, infer, inference, _EMBED),
            Route("POST", "/embeddings", embed, infer, inference, _EMBED),
            Route("POST", "/pooling", pool, infer, inference, _POOL),
            Route("POST", "/classify", classify, infer, inference, _CLASSIFY),
            Route("POST", "/score", score, infer, inference, _SCORE),
            Route("POST", "/v1/score", score, infer, inference, _SCORE),
            Route("POST", "/rerank", rerank, infer, inference, _RERANK),
            Route("POST", "/v1/rerank", rerank, infer, inference, _RERANK),
            Route("POST", "/v2/rerank", cohere_rerank, infer, inference, _RERANK),
            Route("POST", "/v1/load_lora_adapter", load, admin, repository, _LOAD_ADAPTER),
            Route("POST", "/v1/unload_lora_adapter", unload, admin, repository, _UNLOAD_ADAPTER),
            Route("GET", "/v1/models", listed, any_key, Api.METADATA, _MODELS),
            Route("GET", "/v1/models/{model}", one, any_key, Api.METADATA, _MODEL),
            Route("POST", "/tokenize", tokenize, infer, inference, _TOKENIZE),
            Route("POST", "/detokenize", detokenize, infer, inference, _DETOKENIZE),
            Route("GET", "/tokenizer_info", settings, any_key, Api.METADATA, _TOKENIZER),
            Route("GET", "/version", models.version, any_key, Api.METADATA, _VERSION),
            Route("POST", "/reset_prefix_cache", reset, admin, api, _RESET),
            Route("POST", "/sleep", self._sleep.sleep, admin, api, _SLEEP),
            Route("POST", "/wake_up", self._sleep.wake_up, admin, api, _WAKE),
            Route("GET", "/is_sleeping", self._sleep.is_sleeping, any_key, api, _IS_SLEEPING),
            Route("GET", "/load", models.load, any_key, Api.STATISTICS, _LOAD),
        ]

    def _responses(self) -> list[Route]:
        rooms = self._rooms
        create = rooms.handler(lambda made: made.responses.create)
        count = rooms.handler(lambda made: made.responses.count)
        retrieve = rooms.handler(lambda made: made.responses.retrieve)
        delete = rooms.handler(lambda made: made.responses.delete)
        cancel = rooms.handler(lambda made: made.responses.cancel)
        items = rooms.handler(lambda made: made.responses.input_items)
        infer, inference = Scope.INFER, Api.INFERENCE
        one = "/v1/responses/{response}"
        return [
            Route("POST", "/v1/responses", create, infer, inference, _RESPOND),
            Route("POST", "/v1/responses/input_tokens", count, infer, inference, _COUNT_INPUT),
            Route("GET", one, retrieve, infer, inference, _RESPONSE),
            Route("DELETE", one, delete, infer, inference, _FORGET),
            Route("POST", f"{one}/cancel", cancel, infer, inference, _CANCEL),
            Route("GET", f"{one}/input_items", items, infer, inference, _ITEMS),
        ]

    def _anthropic(self) -> list[Route]:
        create = self._rooms.handler(lambda made: made.messages.create)
        count = self._rooms.handler(lambda made: made.messages.count)
        infer, inference = Scope.INFER, Api.INFERENCE
        return [
            Route("POST", "/v1/messages", create, infer, inference, _MESSAGE),
            Route("POST", "/v1/messages/count_tokens", count, infer, inference, _COUNT),
        ]

    def _tgi(self) -> list[Route]:
        rooms, probes = self._rooms, self._probes
        whole = rooms.handler(lambda made: made.generate.whole)
        stream = rooms.handler(lambda made: made.generate.stream)
        either = rooms.handler(lambda made: made.root)
        info = rooms.handler(lambda made: made.info)
        chat_tokenize = rooms.handler(lambda made: made.about.chat_tokenize)
        infer, inference = Scope.INFER, Api.INFERENCE
        return [
            Route("POST", "/generate", whole, infer, inference, _WHOLE),
            Route("POST", "/generate_stream", stream, infer, inference, _STREAM),
            Route("POST", "/", either, infer, inference, _EITHER),
            Route("GET", "/info", info, Scope.ANY, Api.METADATA, _INFO),
            Route("GET", "/health", probes.health, Scope.OPEN, Api.HEALTH, _PROBE),
            Route("GET", "/ping", probes.health, Scope.OPEN, Api.HEALTH, _PROBE),
            Route("POST", "/ping", probes.health, Scope.OPEN, Api.HEALTH, _PROBE),
            Route("POST", "/chat_tokenize", chat_tokenize, infer, inference, _CHAT_TOKENIZE),
            Route("GET", "/metrics", probes.metrics, Scope.METRICS, Api.METADATA, _METRICS),
        ]

    def _tei(self) -> list[Route]:
        rooms = self._rooms
        embed = rooms.handler(lambda made: made.texts.embed)
        embed_all = rooms.handler(lambda made: made.texts.embed_all)
        predict = rooms.handler(lambda made: made.texts.predict)
        similarity = rooms.handler(lambda made: made.texts.similarity)
        infer, inference = Scope.INFER, Api.INFERENCE
        return [
            Route("POST", "/embed", embed, infer, inference, _EMBED_TEXTS),
            Route("POST", "/embed_all", embed_all, infer, inference, _EMBED_TOKENS),
            Route("POST", "/predict", predict, infer, inference, _PREDICT),
            Route("POST", "/similarity", similarity, infer, inference, _SIMILARITY),
        ]

    def _ollama(self) -> list[Route]:
        rooms, about = self._rooms, self._ollama_about
        chat = rooms.handler(lambda made: made.ollama.chat)
        generate = rooms.handler(lambda made: made.ollama.generate)
        embed = rooms.handler(lambda made: made.ollama.embed)
        embeddings = rooms.handler(lambda made: made.ollama.embeddings)
        infer, inference = Scope.INFER, Api.INFERENCE
        any_key, metadata = Scope.ANY, Api.METADATA
        return [
            Route("POST", "/api/chat", chat, infer, inference, _OLLAMA_CHAT),
            Route("POST", "/api/generate", generate, infer, inference, _OLLAMA_GENERATE),
            Route("POST", "/api/embed", embed, infer, inference, _OLLAMA_EMBED),
            Route("POST", "/api/embeddings", embeddings, infer, inference, _OLLAMA_EMBEDDINGS),
            Route("GET", "/api/tags", about.tags, any_key, metadata, _OLLAMA_TAGS),
            Route("GET", "/api/ps", about.running, any_key, metadata, _OLLAMA_PS),
            Route("POST", "/api/show", about.show, any_key, metadata, _OLLAMA_SHOW),
            Route("GET", "/api/version", about.version, any_key, metadata, _OLLAMA_VERSION),
        ]

    def _make(self) -> "LanguageRooms":
        from trivet.server.http.language_rooms import LanguageRooms

        return LanguageRooms.make(self._core, self._limits)


def _answering(form: Callable[[Handler], Handler], rows: list[Route]) -> list[Route]:
    """The rows with their handlers' errors in the form of an API."""
    return [replace(row, handler=form(row.handler)) for row in rows]

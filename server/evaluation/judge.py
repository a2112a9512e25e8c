"""A judge by a rubric: another language model, asked several times. Where there is a reference, the
two texts change places from vote to vote, since models prefer the first one."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trivet.server.evaluation.asking import Endpoint
from trivet.server.evaluation.config import JudgeConfig
from trivet.server.evaluation.faults import JudgeFault
from trivet.server.evaluation.matchers import Verdict
from trivet.server.evaluation.writing import write_whole

_ALONE = """You judge an answer by a rubric. Say whether the answer is as the rubric asks.

RUBRIC
{rubric}

QUESTION
{question}

ANSWER
{answer}

Reply with JSON alone: {{"verdict": "pass" or "fail", "reason": "one sentence"}}"""
_PAIR = """You compare two answers by a rubric. Say which one is more as the rubric asks.

RUBRIC
{rubric}

QUESTION
{question}

ANSWER A
{first}

ANSWER B
{second}

Reply with JSON alone: {{"verdict": "A", "B" or "tie", "reason": "one sentence"}}"""
_ALONE_WORDS = {"pass": "pass", "fail": "fail"}
_PAIR_WORDS = {"a": "A", "b": "B", "tie": "tie"}
_TRIES = 2
_SHOWN = 160
_MAX_TOKENS = 300
MAX_VOTES_KEPT = 50_000


@dataclass(slots=True)
class JudgeFigures:
    """What has come of it so far."""

    votes: int = 0
    cached: int = 0
    tokens: int = 0
    cost: float = 0.0
    agreements: list[float] = field(default_factory=list)

    @property
    def agreement(self) -> float:
        """How large the part of the votes was, on average, that were as most were."""
        return sum(self.agreements) / len(self.agreements) if self.agreements else 1.0


class Judge:
    """Asks, counts votes, and remembers what was said. Owned by one thread."""

    def __init__(
        self, config: JudgeConfig, server: Endpoint, cache: "VoteCache", *, key: str | None = None
    ) -> None:
        """`server`: who is asked where the config names no address; `key`: the judge's."""
        self._config = config
        self._cache = cache
        url = config.url or f"{server.url.rstrip('/')}/v1"
        own = os.environ.get(config.api_key_env, "") if config.api_key_env else ""
        secret = key if key is not None else own
        if not config.url and not secret:
            secret = server.api_key
        self._endpoint = Endpoint(url, secret, config.timeout_s)
        self.figures = JudgeFigures()

    def verdict(self, rubric: str, question: str, answer: str, reference: str) -> Verdict:
        """What most votes are for. Raises JudgeFault."""
        votes, reason = [], ""
        for number in range(self._config.votes):
            if reference:
                vote, reason = self._compare(rubric, question, (answer, reference), number)
            else:
                text = _ALONE.format(rubric=rubric, question=question, answer=answer)
                vote, reason = self._vote(text, _ALONE_WORDS, number)
            votes.append(vote)
        return self._counted(votes, reason)

    def _counted(self, votes: Sequence[str], reason: str) -> Verdict:
        counts = Counter(votes)
        ((_, most),) = counts.most_common(1)
        self.figures.agreements.append(most / len(votes))
        for_it = counts["pass"] + counts["answer"] + counts["tie"]
        told = f"{for_it} of {len(votes)} votes for it"
        told += f", the last: {reason[:_SHOWN]}" if reason else ""
        return Verdict(2 * for_it > len(votes), told)

    def _compare(
        self, rubric: str, question: str, texts: tuple[str, str], number: int
    ) -> tuple[str, str]:
        """A vote for the answer, the reference, or neither."""
        is_swapped = number % 2 == 1
        first, second = reversed(texts) if is_swapped else texts
        text = _PAIR.format(rubric=rubric, question=question, first=first, second=second)
        vote, reason = self._vote(text, _PAIR_WORDS, number)
        if vote == "tie":
            return vote, reason
        return ("answer" if (vote == "A") != is_swapped else "reference"), reason

    def _vote(self, text: str, words: Mapping[str, str], number: int) -> tuple[str, str]:
        key = self._cache.key(self._endpoint.url, self._config.model, text, str(number))
        if (kept := self._cache.find(key)) is not None:
            self.figures.cached += 1
            return kept["vote"], kept["reason"]
        said = ""
        for attempt in range(_TRIES):
            said = self._ask(text, seed=number + attempt * 1000)
            found = _read(said, words)
            if found is not None:
                self.figures.votes += 1
                self._cache.put(key, {"vote": found[0], "reason": found[1]})
                return found
        raise JudgeFault(
            f"judge '{self._config.model}' answers nonsense, {_TRIES} times: {said[:_SHOWN]!r}; it "
            f'was asked for {{"verdict": {" or ".join(words.values())}}}'
        )

    def _ask(self, text: str, *, seed: int) -> str:
        body = {
            "model": self._config.model,
            "messages": [{"role": "user", "content": text}],
            "temperature": 0 if self._config.votes == 1 else 0.7,
            "max_tokens": _MAX_TOKENS,
            "seed": seed,
        }
        try:
            reply = self._endpoint.ask("POST", "/chat/completions", body)
        except OSError as error:
            raise JudgeFault(f"no judge answers at {self._endpoint.url}: {error}") from None
        if reply.fault:
            raise JudgeFault(f"judge '{self._config.model}': {reply.fault}")
        self._pay(reply.document)
        try:
            return str(reply.document["choices"][0]["message"]["content"] or "")
        except (KeyError, IndexError, TypeError):
            raise JudgeFault("what the judge answers is no chat completion") from None

    def _pay(self, document: Any) -> None:
        usage = document.get("usage") if isinstance(document, dict) else None
        tokens = usage.get("total_tokens") if isinstance(usage, dict) else 0
        if isinstance(tokens, int):
            self.figures.tokens += tokens
            self.figures.cost += tokens / 1000 * self._config.price_per_1k_tokens


def _read(said: str, words: Mapping[str, str]) -> tuple[str, str] | None:
    """The verdict in what a judge says; None: there is none."""
    start, end = said.find("{"), said.rfind("}")
    if not 0 <= start < end:
        return None
    try:
        document = json.loads(said[start : end + 1])
    except (ValueError, RecursionError):
        return None
    word = document.get("verdict") if isinstance(document, dict) else None
    vote = words.get(word.strip().lower()) if isinstance(word, str) else None
    return (vote, str(document.get("reason", ""))) if vote is not None else None


class VoteCache:
    """Votes by what was asked, in a file of one JSON object a line; without a file in memory. The
    oldest ones go when there are too many."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._votes: dict[str, dict[str, str]] = {}
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._take(line)
            if len(self._votes) > MAX_VOTES_KEPT:
                self._votes = dict(list(self._votes.items())[-MAX_VOTES_KEPT // 2 :])
                lines = (_line(key, vote) for key, vote in self._votes.items())
                write_whole(path, "".join(lines))

    def _take(self, line: str) -> None:
        try:
            kept = json.loads(line)
            self._votes[kept["key"]] = {"vote": str(kept["vote"]), "reason": str(kept["reason"])}
        except (ValueError, KeyError, TypeError):
            return  # cut in half by a crash: it is asked again

    @staticmethod
    def key(*parts: str) -> str:
        """Of a question."""
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def find(self, key: str) -> dict[str, str] | None:
        """What was said to it."""
        return self._votes.get(key)

    def put(self, key: str, vote: dict[str, str]) -> None:
        """Keeps what was said. Raises OSError."""
        self._votes[key] = vote
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line(key, vote))


def _line(key: str, vote: Mapping[str, str]) -> str:
    return json.dumps({"key": key, **vote}) + "\n"

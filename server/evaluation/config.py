"""`eval.toml` beside a model's version folders: what an evaluation of it is, and whether versions
need one.

gate = "required"                    # or "off", which is usual
sets = ["evals/golden.jsonl"]
regressions = ["evals/regressions.jsonl"]
min_pass_rate = 0.95                 # of the cases of sets; usual is 1.0
max_p95_ms = 200.0
max_cost_per_1k = 0.5                # of 1,000 cases, in the server's currency
concurrency = 1
timeout_s = 60.0                     # of one case

[judge]
url = "http://127.0.0.1:8000/v1"     # left out: this server
model = "judge"
api_key_env = "JUDGE_API_KEY"        # the variable that has the key: its name begins with JUDGE_
votes = 3
price_per_1k_tokens = 0.002

[[lm_eval]]                          # a task of EleutherAI's harness
task = "arc_easy"
metric = "acc"
at_least = 0.6
limit = 200                          # documents; left out: all
few_shot = 0                         # left out: as the task has it
chat = false                         # asked as a chat
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from trivet.server.evaluation.faults import SetFault
from trivet.server.evaluation.harness import HarnessTask
from trivet.server.repository.layout import EVALUATION_FILE, EVALUATION_FOLDER

OFF, REQUIRED = "off", "required"
MAX_VOTES = 15
MAX_DOCUMENTS = 1_000_000_000
JUDGE_PREFIX = "JUDGE_"
"""Of the environment variables that hold keys of judges."""
_KEYS = (
    "concurrency", "gate", "judge", "lm_eval", "max_cost_per_1k", "max_p95_ms", "min_pass_rate",
    "regressions", "sets", "timeout_s",
)  # fmt: skip
_TASK_KEYS = ("at_least", "chat", "few_shot", "limit", "metric", "task")
_JUDGE_KEYS = ("api_key_env", "model", "price_per_1k_tokens", "timeout_s", "url", "votes")


@dataclass(frozen=True, slots=True)
class JudgeConfig:
    """Who judges by a rubric."""

    model: str
    url: str = ""
    """Of an OpenAI API, with its /v1; empty: the server that is evaluated."""
    api_key_env: str = ""
    votes: int = 3
    price_per_1k_tokens: float = 0.0
    timeout_s: float = 120.0


@dataclass(frozen=True, slots=True)
class EvaluationConfig:
    """What an evaluation consists of."""

    gate: str = OFF
    sets: tuple[str, ...] = ()
    """Files, from the model's folder."""
    regressions: tuple[str, ...] = ()
    min_pass_rate: float = 1.0
    max_p95_ms: float = math.inf
    max_cost_per_1k: float = math.inf
    concurrency: int = 1
    timeout_s: float = 60.0
    judge: JudgeConfig | None = None
    tasks: tuple[HarnessTask, ...] = ()
    """Of the evaluation harness."""
    files: tuple[Path, ...] = field(default=())
    """Those of sets and regressions, where they are."""

    @property
    def is_required(self) -> bool:
        """Whether a version needs a report that it has passed."""
        return self.gate == REQUIRED


NOTHING_ASKED = EvaluationConfig()


def read_config(folder: Path) -> EvaluationConfig:
    """What a model's folder says. Raises SetFault, OSError."""
    try:
        text = (folder / EVALUATION_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return NOTHING_ASKED
    except UnicodeDecodeError:
        raise SetFault(f"{EVALUATION_FILE} is not UTF-8 text") from None
    return parse_config(text, folder)


def parse_config(text: str, folder: Path) -> EvaluationConfig:
    """What a file says. Raises SetFault."""
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SetFault(f"{EVALUATION_FILE} is no TOML: {error}") from None
    _check_keys(given, _KEYS, EVALUATION_FILE)
    gate = given.get("gate", OFF)
    if gate not in (OFF, REQUIRED):
        raise SetFault(f"{EVALUATION_FILE}: gate is '{REQUIRED}' or '{OFF}', got {_shown(gate)}")
    sets, regressions = _texts(given, "sets"), _texts(given, "regressions")
    tasks = _tasks(given.get("lm_eval", []))
    if gate == REQUIRED and not sets + regressions and not tasks:
        raise SetFault(
            f"{EVALUATION_FILE}: the gate is required, and there is no set to pass; name some in "
            "sets, or a task in [[lm_eval]]"
        )
    return EvaluationConfig(
        gate,
        sets,
        regressions,
        _number(given, "min_pass_rate", 1.0, 0.0, 1.0),
        _number(given, "max_p95_ms", math.inf),
        _number(given, "max_cost_per_1k", math.inf),
        int(_number(given, "concurrency", 1, 1, 64)),
        _number(given, "timeout_s", 60.0, 0.001),
        _judge(given["judge"]) if "judge" in given else None,
        tasks,
        tuple(_inside(folder, name) for name in (*sets, *regressions)),
    )


def _tasks(given: object) -> tuple[HarnessTask, ...]:
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise SetFault(f"{EVALUATION_FILE}: tasks are tables, [[lm_eval]]")
    return tuple(_task(each, f"{EVALUATION_FILE}: [[lm_eval]]") for each in given)


def _task(given: Mapping[str, Any], place: str) -> HarnessTask:
    _check_keys(given, _TASK_KEYS, place)
    name, metric = given.get("task"), given.get("metric", "acc")
    if not isinstance(name, str) or not name or not isinstance(metric, str):
        raise SetFault(f"{place}: task and metric are to be texts, got {_shown((name, metric))}")
    if not isinstance(given.get("chat", False), bool):
        raise SetFault(f"{place}: chat is true or false, got {_shown(given['chat'])}")
    if "at_least" not in given:
        raise SetFault(f"{place}: task '{name[:64]}' lacks at_least, how good it must be")
    few_shot = _count(given, "few_shot", 1000, place) if "few_shot" in given else None
    return HarnessTask(
        name,
        _number(given, "at_least", 0.0, -math.inf),
        metric,
        _count(given, "limit", MAX_DOCUMENTS, place) if "limit" in given else 0,
        few_shot,
        given.get("chat", False),
    )


def _judge(given: object) -> JudgeConfig:
    place = f"{EVALUATION_FILE}: [judge]"
    if not isinstance(given, dict):
        raise SetFault(f"{place} is to be a table")
    _check_keys(given, _JUDGE_KEYS, place)
    for key in ("model", "url", "api_key_env"):
        if not isinstance(given.get(key, ""), str):
            raise SetFault(f"{place}: {key} is to be a text, got {_shown(given[key])}")
    if not given.get("model"):
        raise SetFault(f"{place} names no model")
    variable = given.get("api_key_env", "")
    if variable and not variable.startswith(JUDGE_PREFIX):
        raise SetFault(
            f"{place}: api_key_env is to begin with {JUDGE_PREFIX}, got '{variable[:64]}': whoever "
            "writes this file says where the key is sent, and other variables are not for that"
        )
    url = given.get("url", "")
    if url and not url.startswith(("http://", "https://")):
        raise SetFault(f"{place}: url is to begin with http:// or https://, got '{url[:64]}'")
    return JudgeConfig(
        given["model"],
        url.rstrip("/"),
        variable,
        int(_number(given, "votes", 3, 1, MAX_VOTES)),
        _number(given, "price_per_1k_tokens", 0.0),
        _number(given, "timeout_s", 120.0, 0.001),
    )


def _check_keys(given: Mapping[str, Any], known: Sequence[str], place: str) -> None:
    for key in given:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            meant = f"did you mean '{near[0]}'?" if near else f"its keys are {', '.join(known)}"
            raise SetFault(f"{place}: it has no key '{key[:64]}'; {meant}")


def _texts(given: Mapping[str, Any], key: str) -> tuple[str, ...]:
    found = given.get(key, [])
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise SetFault(f"{EVALUATION_FILE}: '{key}' is to be a list of files, got {_shown(found)}")
    return tuple(found)


def _number(
    given: Mapping[str, Any], key: str, usual: float, least: float = 0.0, most: float = math.inf
) -> float:
    found = given.get(key, usual)
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    if is_number and least <= found <= most:
        return float(found)
    raise SetFault(
        f"{EVALUATION_FILE}: {key} is to be a number from {least:g} to {most:g}, got "
        f"{_shown(found)}"
    )


def _count(given: Mapping[str, Any], key: str, most: int, place: str) -> int:
    found = given[key]
    if isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= most:
        return found
    raise SetFault(f"{place}: {key} is to be a whole number from 0 to {most}, got {_shown(found)}")


def _inside(folder: Path, name: str) -> Path:
    """Where nothing is of a version: a set that changes must not load the versions anew."""
    path = (folder / name).resolve()
    if not path.is_relative_to((folder / EVALUATION_FOLDER).resolve()):
        raise SetFault(
            f"{EVALUATION_FILE}: '{name[:200]}' is not in the folder '{EVALUATION_FOLDER}'; put it "
            f"there and write {EVALUATION_FOLDER}/NAME.jsonl"
        )
    return path


def _shown(given: object) -> str:
    return repr(given)[:64]

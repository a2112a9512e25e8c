"""Tasks of EleutherAI's evaluation harness, run by the harness itself: a program of its own, which
asks the server over OpenAI's completions or chats."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trivet.server.evaluation.asking import VERSION_HEADER, Endpoint
from trivet.server.evaluation.faults import SetFault

USUAL_PROGRAM = "lm_eval"
FOLDER = "lm-eval"
"""In the folder of evaluations: tasks of one's own."""
HARNESS_TIMEOUT_S = 6 * 3600.0
"""Of a task."""
_SHOWN = 400


@dataclass(frozen=True, slots=True)
class HarnessTask:
    """One of them, and how good its figure must be."""

    name: str
    at_least: float
    metric: str = "acc"
    limit: int = 0
    """Documents of it that are asked; 0: all."""
    few_shot: int | None = None
    """None: as many as the task has."""
    is_chat: bool = False

    @property
    def told(self) -> str:
        """As reports name it."""
        return f"lm-eval {self.name}: {self.metric}"


class Harness:
    """Runs tasks against one version of a model. Blocking."""

    def __init__(self, program: str, endpoint: Endpoint, tasks_dir: Path, timeout_s: float) -> None:
        """`tasks_dir`: where tasks of one's own may lie."""
        self._program = program
        self._endpoint = endpoint
        self._tasks_dir = tasks_dir
        self._timeout_s = timeout_s

    def value(self, task: HarnessTask, model: str, version: str, concurrency: int) -> float:
        """The figure of a task. Raises SetFault where it has none."""
        with tempfile.TemporaryDirectory(prefix="trivet-lm-eval-") as folder:
            place = Path(folder)
            given = self._given(task, model, version, concurrency, place)
            # A file that nobody else reads: a command's words are seen by all, and a key is in it.
            config = place / "run.yaml"
            config.touch(0o600)
            config.write_text(json.dumps(given), encoding="utf-8")
            self._run(task, ["run", "--config", str(config)])
            return _figure(task, place)

    def _given(
        self, task: HarnessTask, model: str, version: str, concurrency: int, place: Path
    ) -> dict[str, Any]:
        url = self._endpoint.url.rstrip("/")
        url = url if "//" in url else f"http://{url}"
        headers = {VERSION_HEADER: version}
        if self._endpoint.api_key:
            headers["Authorization"] = f"Bearer {self._endpoint.api_key}"
        path = "/v1/chat/completions" if task.is_chat else "/v1/completions"
        arguments: dict[str, Any] = {
            "model": model,
            "base_url": url + path,
            "num_concurrent": concurrency,
            "max_retries": 1,
            "header": headers,
        }
        if not task.is_chat:
            arguments["tokenizer_backend"] = "remote"
        given: dict[str, Any] = {
            "model": "local-chat-completions" if task.is_chat else "local-completions",
            "model_args": arguments,
            "tasks": [task.name],
            "output_path": str(place / "results"),
            "apply_chat_template": task.is_chat,
        }
        if task.limit:
            given["limit"] = task.limit
        if task.few_shot is not None:
            given["num_fewshot"] = task.few_shot
        if self._tasks_dir.is_dir():
            given["include_path"] = str(self._tasks_dir.resolve())
        return given

    def _run(self, task: HarnessTask, words: Sequence[str]) -> None:
        try:
            ended = subprocess.run(  # noqa: S603 - the operator names the program
                [self._program, *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self._timeout_s,
                env=_environment(),
                check=False,
            )
        except FileNotFoundError:
            raise SetFault(
                f"{task.told} needs the program '{self._program}': pip install 'lm_eval[api]', "
                "perhaps in an environment of its own, and name it by --lm-eval"
            ) from None
        except subprocess.TimeoutExpired:
            raise SetFault(f"{task.told} took longer than {self._timeout_s:g} s") from None
        except OSError as error:
            raise SetFault(f"{task.told}: '{self._program}' cannot be run: {error}") from None
        if ended.returncode:
            said = (ended.stderr.strip() or ended.stdout.strip())[-_SHOWN:]
            raise SetFault(f"{task.told}: the harness failed: {said}")


def _environment() -> dict[str, str]:
    """Without our packages, and without the key of whoever runs this."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTHON") and name != "TRIVET_API_KEY"
    }


def _figure(task: HarnessTask, place: Path) -> float:
    results = dict(_results(place))
    figures = results.get(task.name, {})
    for name, value in figures.items():
        # Behind the comma stands a filter of the harness.
        is_it = task.metric in (name, name.partition(",")[0])
        if is_it and isinstance(value, int | float):
            return float(value)
    known = ", ".join(name for name, value in figures.items() if isinstance(value, int | float))
    raise SetFault(f"{task.told}: there is no such figure; there are {known or 'none'}")


def _results(place: Path) -> Iterator[tuple[str, Any]]:
    for path in (place / "results").rglob("results*.json"):
        yield from json.loads(path.read_text(encoding="utf-8"))["results"].items()

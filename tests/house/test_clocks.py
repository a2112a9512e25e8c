"""Nothing waits or times out by the wall clock, which jumps: by an hour, or back."""

import ast

from house_rules import Source, sources

WALL = {
    ("time", "time"),
    ("time", "time_ns"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
    ("date", "today"),
}
# Who tells the wall clock's time to somebody, and to whom. Nobody compares or adds it.
TELLING = {
    "server/metrics/generating.py": "vLLM's metric of adapters, whose value is the time",
    "server/http/answers.py": "the Date header",
    "server/http/openai/documents.py": "`created` in OpenAI's documents",
    "server/http/anthropic/models.py": "`created_at` in Anthropic's documents",
    "server/http/ollama/answer.py": "`created_at` in Ollama's documents",
    "server/http/ollama/about.py": "`modified_at` in Ollama's documents",
    "server/scheduling/statistics.py": "`last_inference` of the statistics extension",
    "server/tracing/otlp.py": "spans have wall-clock times; one difference for a whole trace",
    "server/console/lines.py": "since when the console has lines of the log",
    "server/console/room.py": "the time axis of the console's charts",
    "server/console/traces.py": "when traces began; one difference for a whole answer",
    "server/shadows/mirror.py": "`at` of differences that are kept",
    "server/cost/ledger.py": "the day in the files of costs",
    "server/evaluation/running.py": "`started_at` of reports",
    "server/rollouts/chronicle.py": "`at` in the history of roll-outs",
    "backends/llm/text/chat.py": "strftime_now in chat templates",
}


def readings(module: Source) -> list[str]:
    """Where a module reads the wall clock."""
    return [
        f"{module.name}:{node.lineno}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and (ast.unparse(node.func.value).rpartition(".")[2], node.func.attr) in WALL
    ] + [
        f"{module.name}:{node.lineno}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom)
        and node.module == "time"
        and any(alias.name in ("time", "time_ns") for alias in node.names)
    ]


def test_only_who_tells_it_to_somebody_reads_the_wall_clock() -> None:
    reading = {module.name: places for module in sources() if (places := readings(module))}

    assert {name: reading[name] for name in reading.keys() - TELLING.keys()} == {}
    assert TELLING.keys() - reading.keys() == set()

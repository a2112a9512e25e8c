"""`python -m bench.against.engine_step STEPS` prints what a step of the engine costs.

The engine is the one that is on the path, also of a commit whose modules lay elsewhere.
"""

import json
import sys
from importlib import import_module

LLM = "trivet.backends.llm"
MOVED = {
    "engine.engine": "engine",
    "sampling.grammar": "grammar",
    "scheduling.batch_state": "batch_state",
    "scheduling.blocks": "blocks",
    "scheduling.scheduler": "scheduler",
}
"""Modules that the bench imports, and where they were before they got rooms."""


def find_moved() -> None:
    """Lets modules be imported by today's names where only the earlier ones exist."""
    for name, earlier in MOVED.items():
        try:
            import_module(f"{LLM}.{name}")
        except ModuleNotFoundError:
            sys.modules[f"{LLM}.{name}"] = import_module(f"{LLM}.{earlier}")


if __name__ == "__main__":
    find_moved()
    print(json.dumps(import_module("bench.llm_step").measure(int(sys.argv[1]))))

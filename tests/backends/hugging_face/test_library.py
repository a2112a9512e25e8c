"""transformers from several threads at once, in a process that has not imported it."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
THREADS = """
import sys, threading, time

def ask(first):
    while not first and "transformers" not in sys.modules:
        time.sleep(0.001)
    from trivet.backends.hugging_face.library import transformers
    got.append(transformers.AutoModel)

got = []
threads = [threading.Thread(target=ask, args=(number == 0,)) for number in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(got), len(set(got)))
"""


def test_each_thread_has_the_whole_of_it() -> None:
    asked = subprocess.run(
        [sys.executable, "-c", THREADS], cwd=ROOT, check=True, capture_output=True, text=True
    )

    assert asked.stdout == "4 1\n"


def test_nothing_imports_it_past_its_door() -> None:
    past = re.compile(r"^\s*(import transformers\b|from transformers import)", re.MULTILINE)

    importing = [
        path.relative_to(ROOT).as_posix()
        for room in ("backends", "ensembles", "server")
        for path in (ROOT / room).rglob("*.py")
        if past.search(path.read_text())
    ]

    assert importing == []

#!/usr/bin/env bash
# transformers 5.23.0 with CPython 3.11: the first import from several threads at once.
#
# Situation: a server loads several models at once, each in a thread; one is importing transformers when
# the others come to their `import transformers`.
# Guess: the import system's locks make the others wait, and then all have the same module.
# Seen: they wait, and then have another module than the first: an object with the version and little
# else, on which `AutoModel` raises AttributeError, for as long as they keep it. transformers puts an
# object of its own in its place in sys.modules at the end of its import, and the statement looked that
# place up before it waited. `importlib.import_module` looks again after the wait: all get the whole one.
# So: models that loaded for months fail to load on a busier machine, and loading them again works.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.23.0
cat > "$folder/threads.py" <<'END'
import importlib
import sys
import threading
import time

FOUR = 4


def by_statement():
    import transformers

    return transformers


def by_function():
    return importlib.import_module("transformers")


def keep(how, first):
    while not first and "transformers" not in sys.modules:
        time.sleep(0.001)
    got.append(how())


got = []
how = {"statement": by_statement, "function": by_function}[sys.argv[1]]
threads = [threading.Thread(target=keep, args=(how, number == 0)) for number in range(FOUR)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
whole = sum(hasattr(each, "AutoModel") for each in got)
print(f"by {sys.argv[1]}: {whole} of {FOUR} threads have AutoModel, {len(set(map(id, got)))} modules")
raise SystemExit(0 if (whole < FOUR) == (sys.argv[1] == "statement") else "that is otherwise now")
END
"$folder/venv/bin/python" "$folder/threads.py" statement
"$folder/venv/bin/python" "$folder/threads.py" function
echo "as described"

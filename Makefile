# `make demo` and `make test` do all the set-up: a virtual environment in .venv, then the package in it.

VENV := .venv
BIN := $(VENV)/bin
QUESTION := Mia makes 10 pencils on each of 6 days and Noah makes 12 on each of 2 days. They share them all among 6 friends. How many pencils does each friend get?

# MLX's BLAS for Linux takes three times as long as OpenBLAS, so the tests use OpenBLAS where it is installed. Each of
# the two test processes has one core.
OPENBLAS := $(firstword $(wildcard /usr/lib/*/openblas-pthread/libopenblas.so.0))
ONE_CORE := $(if $(OPENBLAS),LD_PRELOAD=$(OPENBLAS)) OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1

.PHONY: demo test golden words lint types docs student report ablations

demo: $(VENV)/.installed
	$(BIN)/d3mlx generate "$(QUESTION)"

test: words lint types
	@$(BIN)/python -m tests.metal.requirements
	$(ONE_CORE) $(BIN)/python -m pytest -n 2 --dist worksteal

golden: $(VENV)/.installed-dev
	$(ONE_CORE) $(BIN)/python -m pytest -n 2 tests/golden --emulate-all

# What it has done before an interruption is kept in runs/.
student: $(VENV)/.installed
	$(BIN)/python -m d3mlx.research.builds.student --out d3mlx/data/embedded --rounds 1 --resume

report: $(VENV)/.installed
	$(BIN)/python -m d3mlx.research.experiments.report

ablations: $(VENV)/.installed
	$(BIN)/python -m d3mlx.research.experiments.ablations

words: $(VENV)/.installed-dev
	$(BIN)/python -m tests.check_words

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/python -m tests.check_types

docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build

# Editable: a change in the source needs no new installation, one in pyproject.toml does.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing d3mlx into $(VENV) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "Installing d3mlx and its test tools into $(VENV) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e ".[dev]"
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml | $(BIN)/python
	@echo "Installing d3mlx and its documentation tools into $(VENV) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e ".[docs]"
	@touch $@ $(VENV)/.installed

$(BIN)/python:
	@if command -v uv >/dev/null; then uv venv -q --seed --python '>=3.11' $(VENV); exit; fi; \
	for python in python3.14 python3.13 python3.12 python3.11 python3; do \
	  if $$python -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "Creating $(VENV) with $$($$python --version)."; exec $$python -m venv $(VENV); \
	  fi; \
	done; \
	echo "d3mlx needs Python 3.11 or newer with its venv module; install it, for example with 'brew install python' or 'apt install python3-venv'." >&2; \
	exit 1

# One command each; all do their own set-up. `make help` lists them.
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The first Python that TensorFlow supports: the one the shell finds, else a named one.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$python && break; done)
UV := $(shell command -v uv 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all check lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-8s %s\n", $$1, $$2}'

setup: $(READY)  ## install everything into .venv, as requirements.lock says

demo: $(READY)  ## train three models on real reviews, compare, export, serve, predict
	@$(BIN)/valence demo

test: check  ## run every check, and the tests that are not slow
	@$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow"

test-all: check  ## run every check and every test, as continuous integration does
	@$(BIN)/python -m pytest -n auto --dist loadfile

check: $(READY)  ## style, types and the direction of imports, without the tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

lock:  ## resolve pyproject.toml anew into requirements.lock (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 --extra dev --extra grpc --extra reviews \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet -o requirements.lock

clean:  ## remove .venv; runs and exports in artifacts/ stay
	rm -rf $(VENV)

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Valence needs Python 3.11, 3.12 or 3.13; none is on the PATH." >&2; exit 2; }
	@echo "Setting up $(VENV) (once; about a minute, most of it downloads) ..."
# uv leaves compiling to the first import. Where that may write no bytecode, every process would compile everything anew.
ifneq ($(UV),)
	@test -x $(BIN)/python || uv venv --quiet --python "$$(command -v $(PYTHON))" $(VENV)
	@uv pip install --quiet $(if $(PYTHONDONTWRITEBYTECODE),--compile-bytecode) --python $(BIN)/python --no-deps --require-hashes -r requirements.lock
	@uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
else
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
endif
	@touch $@

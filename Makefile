# Every target does its own set-up and may be run twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
# pip's own arguments for a special index or cache: make env PIP_ARGS="..."
PIP_ARGS ?=
ARGS ?=
# Tests side by side: many of them wait for a process that starts, or for a broker.
WORKERS ?= -n 4 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help env demo test lint gen

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 8

env: $(STAMP) ## the project's .venv, reused when nothing changed

$(STAMP): pyproject.toml constraints.txt clients/python/pyproject.toml
	@echo "Setting up $(VENV) (two to three minutes the first time)"
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Ousel needs Python 3.11 or newer; run: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e clients/python -e '.[demo,dev]'
	$(BIN)/ousel-engine compile  # half a minute, once
	@touch $(STAMP)

demo: $(STAMP) ## broker, engine and trainer on a year of real purchases; ARGS="--events 20000" ends by itself
	@exec $(BIN)/python -m deploy.demo $(ARGS)

test: $(STAMP) lint ## lint, types, import contracts, then every test, by four workers; ARGS="-k name" picks
	$(BIN)/python -m pytest $(WORKERS) $(ARGS)

lint: $(STAMP) ## ruff, mypy and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

gen: $(STAMP) ## the protobuf stubs under clients/python/ousel/v1, from proto/
	$(BIN)/python -m grpc_tools.protoc -I proto --python_out=clients/python --pyi_out=clients/python \
		--grpc_python_out=clients/python proto/ousel/v1/*.proto

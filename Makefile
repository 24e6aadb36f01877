# Every target does its own set-up and may be run twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
GENERATOR := build/generator/.ready
# pip's own arguments for a special index or cache: make env PIP_ARGS="..."
PIP_ARGS ?=
ARGS ?=
# Tests side by side: many of them wait for a process that starts, or for a broker.
WORKERS ?= -n 4 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help env demo test test-client-versions test-s3 lint gen

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 8

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

test: $(STAMP) $(GENERATOR) lint ## lint, types, import contracts, then every test, by four workers; ARGS="-k name" picks
	$(BIN)/python -m pytest $(WORKERS) $(ARGS)

lint: $(STAMP) ## ruff, mypy and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# Generated code runs with versions of grpcio and protobuf that are newer than its generator, never with older ones. So
# the stubs are made by the generator that belongs to the oldest versions of the client. It stands apart from .venv,
# where the engine has newer ones. Its wheels end at Python 3.12; with a later Python the stubs can't be made, only used.
$(GENERATOR): $(STAMP) clients/python/oldest.txt
	rm -rf $(@D)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --no-deps --only-binary :all: \
		--target $(@D) $$(sed -n 's/^grpcio==/grpcio-tools==/p' clients/python/oldest.txt) \
		|| echo "There is no generator of the stubs for this Python; make gen needs 3.11 or 3.12"
	@mkdir -p $(@D) && touch $@

gen: $(GENERATOR) ## the protobuf stubs under clients/python/ousel/v1, from proto/
	PYTHONPATH=$(<D) $(BIN)/python -m grpc_tools.protoc -I proto -I $(<D)/grpc_tools/_proto --python_out=clients/python \
		--pyi_out=clients/python --grpc_python_out=clients/python proto/ousel/v1/*.proto

# A .venv for each end of the client's ranges. They are no part of `make test`, which would wait for one more download,
# and are kept until the versions change.
build/client-%/.ready: clients/python/%.txt clients/python/pyproject.toml constraints.txt
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --only-binary grpcio,protobuf \
		-c $< -e clients/python $$(grep -E '^(hypothesis|pytest|pytest-asyncio)==' constraints.txt)
	@touch $@

test-client-versions: build/client-oldest/.ready build/client-newest/.ready ## the client's tests at both ends of its ranges
	for end in oldest newest; do \
		build/client-$$end/bin/python -m pytest --confcutdir tests/clients tests/clients $(ARGS) || exit 1; \
	done

# An S3 server in Python, for the registry of models. It stands apart, since it brings 100 MB, and an older version of a
# package that .venv has.
build/s3/.ready: $(STAMP)
	rm -rf $(@D)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --target $(@D) \
		"moto[s3]==5.2.5" "flask==3.1.3" "flask-cors==6.0.5"
	@touch $@

test-s3: build/s3/.ready ## the registry's tests against an S3 server, which make test skips
	PYTHONPATH=$(<D) $(BIN)/python -m pytest tests/engine/registry/test_places.py $(ARGS)

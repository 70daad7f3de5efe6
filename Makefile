# Python 3.11 or newer and make are all that is needed: each target installs the rest
# into a virtual environment beside this file.
PYTHON ?= python3
PIP := -m pip --disable-pip-version-check --quiet
BIN := .venv/bin
export PIP_ROOT_USER_ACTION := ignore

.PHONY: demo test test-hosts test-providers lint soak clean

demo: .venv/.demo  ## answer a question with a Self-MoA; MODEL=openai:gpt-4o-mini for another model
	@$(BIN)/python examples/demo.py $(QUESTION)

test: .venv/.dev .venv-litellm/.done lint  ## lint, types, tests
	$(BIN)/python -m pytest

test-hosts: .venv-hosts/.done  ## the tests of LangChain's agents, with mixtures for models
	.venv-hosts/bin/python tests/hosts/run.py $(ARGS)

test-providers: .venv-providers/.done  ## twelve set-ups of providers' clients, over stubs
	PROVIDERS=all .venv-providers/bin/python -m pytest tests/providers -q -r fE $(ARGS)

lint: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

soak: .venv/.dev  ## three thousand mixtures with faults, in less than a minute
	$(BIN)/python benchmarks/soak.py

clean:
	rm -rf .venv .venv-litellm .venv-hosts .venv-providers .mypy_cache .pytest_cache .ruff_cache

.venv/.demo: pyproject.toml examples/local_model.py
	@echo "Installing into .venv (about a minute, once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python $(PIP) install --upgrade "pip>=25.1"
	@$(BIN)/python $(PIP) install --editable ".[langchain,openai]"
	@$(BIN)/python examples/local_model.py install
	@touch $@

.venv/.dev: .venv/.demo
	$(BIN)/python $(PIP) install --editable . --group dev
	@touch $@

# LiteLLM needs openai < 3, so it has an environment of its own.
.venv-litellm/.done: pyproject.toml
	$(PYTHON) -m venv .venv-litellm
	.venv-litellm/bin/python $(PIP) install --upgrade "pip>=25.1"
	.venv-litellm/bin/python $(PIP) install --editable . --group litellm
	@touch $@

.venv-providers/.done: pyproject.toml
	$(PYTHON) -m venv .venv-providers
	.venv-providers/bin/python $(PIP) install --upgrade "pip>=25.1"
	.venv-providers/bin/python $(PIP) install --editable . --group providers
	@touch $@

# The hosts bring the packages of several providers, and their tests need more.
.venv-hosts/.done: pyproject.toml
	$(PYTHON) -m venv .venv-hosts
	.venv-hosts/bin/python $(PIP) install --upgrade "pip>=25.1"
	.venv-hosts/bin/python $(PIP) install --editable . --group hosts
	@touch $@

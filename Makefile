# Python 3.11 or newer and make are all that is needed: each target installs the rest
# into a virtual environment beside this file.
PYTHON ?= python3
PIP := -m pip --disable-pip-version-check --quiet
BIN := .venv/bin
UV := .venv-uv/bin/uv
# More workers than cores: many tests wait.
WORKERS ?= 4
PYTEST := -m pytest --numprocesses $(WORKERS) --dist loadgroup
export PIP_ROOT_USER_ACTION := ignore
# uv trusts what the machine trusts, as pip does.
export UV_SYSTEM_CERTS := true
# Keep compiled tests, wherever this is switched off: else each worker compiles its own.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-hosts test-providers test-server test-lowest test-newest lint dist docs constraints bench bench-agents soak withstand clean

# QUESTION and MODEL reach it as environment variables: no shell reads them.
demo: .venv/.demo  ## count samples of a small model; QUESTION="Why?" or MODEL=openai:gpt-4o-mini
	@$(BIN)/python examples/demo.py

test: .venv/.dev .venv-litellm/.done lint  ## lint, types, tests, with the versions in constraints.txt; COVER=--cov holds coverage, too
	$(BIN)/python $(PYTEST) $(COVER)

# What pyproject.toml allows at the least, and at the most: nothing here is pinned.
test-lowest: RESOLUTION := lowest-direct
test-newest: RESOLUTION := highest
test-lowest test-newest: test-%: $(UV)  ## tests with the lowest, the newest versions allowed
	$(UV) venv --quiet --clear --python $(PYTHON) .venv-$*
	$(UV) pip compile --quiet --python .venv-$* --all-extras --resolution $(RESOLUTION) --output-file .venv-$*/versions.txt pyproject.toml
	$(UV) pip install --quiet --python .venv-$* --constraints .venv-$*/versions.txt --editable . --requirements pyproject.toml --all-extras --group dev
	$(UV) pip list --python .venv-$* | grep -E "^(lang|openai|pydantic |tenacity|typing)"
	.venv-$*/bin/python $(PYTEST)

test-hosts: .venv-hosts/.done  ## the tests of LangChain's agents, with mixtures for models
	.venv-hosts/bin/python tests/hosts/run.py $(ARGS)

test-providers: .venv-providers/.done  ## twelve set-ups of providers' clients, over stubs
	PROVIDERS=all .venv-providers/bin/python -m pytest tests/providers -q -r fE $(ARGS)
	.venv-providers/bin/python -m pytest tests/test_examples.py tests/test_agent_cases.py -k deep -q

test-server: .venv/.dev .venv-server/.done  ## a mixture on LangGraph's Agent Server, in its dev runtime
	$(BIN)/python -m pytest tests/test_machines.py

lint: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

dist: $(UV)  ## build the wheel; with each extra it imports and answers in an empty environment
	rm -rf dist
	$(UV) build --quiet
	$(PYTHON) tests/wheel_program.py $(UV) dist/*.whl

docs: .venv-docs/.done  ## a site in build/site, which needs no network; SITE_URL is its address for llms.txt
	rm -rf build/docs build/site && mkdir -p build/docs
	cp -r docs examples *.md LICENSE build/docs
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet
	! grep -rlE '<(script|img|link [^>]*stylesheet)[^>]*"https?:' build/site --include='*.html'
	@echo "To read it: $(PYTHON) -m http.server --bind 127.0.0.1 --directory build/site"

constraints: $(UV)  ## write the newest versions of everything into constraints.txt
	$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --group dev --no-annotate --no-header --output-file constraints.txt pyproject.toml

bench: .venv/.dev  ## what the package costs, into docs/speed.md, in ten minutes; LOOK=quick is a look
	$(BIN)/python -m benchmarks.speed $(LOOK)

bench-agents: .venv/.dev  ## what a mixture costs in a tool loop, in two minutes
	$(BIN)/python benchmarks/agents.py

soak: .venv/.dev  ## three thousand mixtures with faults, in less than a minute
	$(BIN)/python benchmarks/soak.py

withstand: .venv/.dev  ## mixed questions, runs that are cancelled, and kills; a quarter of an hour
	$(BIN)/python benchmarks/withstand.py mixed
	$(BIN)/python benchmarks/withstand.py cancelled
	$(BIN)/python benchmarks/withstand.py kills

clean:
	rm -rf .venv .venv-* dist .mypy_cache .pytest_cache .ruff_cache .coverage

.venv/.demo: pyproject.toml constraints.txt examples/local_model.py
	@echo "Installing into .venv (about a minute, once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python $(PIP) install --upgrade "pip>=25.1"
	@$(BIN)/python $(PIP) install --constraint constraints.txt --editable ".[evaluation,langchain,openai,report,watch]"
	@$(BIN)/python examples/local_model.py install
	@touch $@

.venv/.dev: .venv/.demo
	$(BIN)/python $(PIP) install --constraint constraints.txt --editable . --group dev
	@touch $@

# LiteLLM needs openai < 3, so it has an environment of its own.
.venv-litellm/.done: pyproject.toml
	$(PYTHON) -m venv .venv-litellm
	.venv-litellm/bin/python $(PIP) install --upgrade "pip>=25.1"
	.venv-litellm/bin/python $(PIP) install --editable . --group litellm
	@touch $@

$(UV):
	$(PYTHON) -m venv .venv-uv
	.venv-uv/bin/python $(PIP) install "uv>=0.9,<1"

.venv-providers/.done: pyproject.toml
	$(PYTHON) -m venv .venv-providers
	.venv-providers/bin/python $(PIP) install --upgrade "pip>=25.1"
	.venv-providers/bin/python $(PIP) install --editable . --group providers
	@touch $@

.venv-server/.done: pyproject.toml
	$(PYTHON) -m venv .venv-server
	.venv-server/bin/python $(PIP) install --upgrade "pip>=25.1"
	.venv-server/bin/python $(PIP) install --editable ".[langchain,openai]" --group server
	@touch $@

.venv-docs/.done: pyproject.toml
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python $(PIP) install --upgrade "pip>=25.1"
	.venv-docs/bin/python $(PIP) install --group docs
	@touch $@

# The hosts bring the packages of several providers, and their tests need more.
.venv-hosts/.done: pyproject.toml
	$(PYTHON) -m venv .venv-hosts
	.venv-hosts/bin/python $(PIP) install --upgrade "pip>=25.1"
	.venv-hosts/bin/python $(PIP) install --editable . --group hosts
	@touch $@

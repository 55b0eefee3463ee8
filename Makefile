# Two commands do all the set-up:
#   make demo    installs, draws a wide picture with the bundled model, says where it is
#   make test    installs, runs the tests
# make test-slow runs those that take minutes: the examples as documented, with all their steps.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow check format

demo: $(VENV)/.run
	$(BIN)/python cli.py --offline --control depth --guide examples/guides/valley.png \
		--prompt "a mountain valley at sunset" --output out/demo.png --overwrite
	@echo "The picture is out/demo.png; the guide it follows is examples/guides/valley.png."

test: $(VENV)/.dev
	$(BIN)/python -m pytest

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/.run: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

# Two commands do all the set-up:
#   make demo    installs, draws a wide picture with the bundled model, says where it is
#   make test    installs, runs the tests
# make app installs what the page needs, serves it and opens a browser.
# make test-slow runs those that take minutes: the examples as documented, with all their steps.
# make test-browser tests the page in Chromium, if it is there.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo app test test-slow test-browser check format

demo: $(VENV)/.run
	$(BIN)/python cli.py --offline --control depth --guide examples/guides/valley.png \
		--prompt "a mountain valley at sunset" --output out/demo.png --overwrite
	@echo "The picture is out/demo.png; the guide it follows is examples/guides/valley.png."

app: $(VENV)/.app
	$(BIN)/python -m synccontrol.app --open

test: $(VENV)/.dev
	$(BIN)/python -m pytest

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

test-browser: $(VENV)/.dev
	$(BIN)/python -m pytest -m browser

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

$(VENV)/.app: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[app]"
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

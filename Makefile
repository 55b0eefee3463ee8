# Two commands do all the set-up:
#   make demo    installs, draws a wide picture with the bundled model, says where it is
#   make test    installs, runs the tests
# make app installs what the page needs, serves it and opens a browser.
# make test-slow runs those that take minutes: the examples as documented, with all their steps.
# make fuzz runs the command line on 10,000 command lines, manifests and files, right and wrong (CASES=... on more).
# make site builds the site of the documents into site/; make pictures draws their pictures again.
# make test-browser tests the page in Chromium, if it is there.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

define NEXT

The picture is out/demo.png; the guide it follows is examples/guides/valley.png. Try next:

  . $(VENV)/bin/activate
  synccontrol --control depth --guide examples/guides/valley.png --prompt "snowy mountains at dawn"
  synccontrol --control pose --guide examples/guides/people.png --prompt "people on a meadow, noon"
  synccontrol --control depth --loop --guide examples/guides/ring.png --prompt "a snowy mountain range"
  synccontrol doctor

This model is small and knows one illustrated world: mountains, snow, desert, forest, meadow, lake, sea, city,
people; dawn, noon, sunset, night, overcast. Other words mean nothing to it, and photographs
it cannot draw: synccontrol --list-models names models that do.
endef
export NEXT

.PHONY: demo app test test-slow fuzz test-browser check format site pictures

demo: $(VENV)/.run
	$(BIN)/python cli.py --offline --control depth --guide examples/guides/valley.png \
		--prompt "a mountain valley at sunset" --output out/demo.png --overwrite
	@echo "$$NEXT"

app: $(VENV)/.app
	$(BIN)/python -m synccontrol.studio --open

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

CASES ?= 10000
fuzz: $(VENV)/.dev
	CASES=$(CASES) $(BIN)/python -m pytest -m slow tests/fuzz

test-browser: $(VENV)/.dev
	$(BIN)/python -m pytest -m browser

site: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "The site is site/index.html."

pictures: $(VENV)/.dev
	$(BIN)/python -m docs.drawings

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

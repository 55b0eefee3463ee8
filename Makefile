# Two commands do the whole set-up:
#   make demo          installs, generates a wide image with the bundled model and prints its path
#   make test          installs and runs the tests
# Others:
#   make app           installs the page, serves it and opens a browser
#   make test-slow     runs the tests that take minutes: the documented examples, with all their steps
#   make test-browser  tests the page in Chromium, if it is installed
#   make fuzz          tries 10,000 command lines, manifests and files, right and wrong (CASES=... for more)
#   make site          builds the site of the documentation into site/
#   make pictures      generates the images of the documentation again
#   make check         checks format, lint and types; make format fixes format and lint

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

define NEXT

The image is out/demo.png. It follows the guide examples/guides/valley.png. Try next:

  . $(VENV)/bin/activate
  synccontrol --control depth --guide examples/guides/valley.png --prompt "snowy mountains at dawn"
  synccontrol --control pose --guide examples/guides/people.png --prompt "people on a meadow, noon"
  synccontrol --control depth --loop --guide examples/guides/ring.png --prompt "a snowy mountain range"
  synccontrol doctor

The bundled model is small and knows one illustrated world: mountains, snow, desert, forest, meadow, lake, sea, city,
people; dawn, noon, sunset, night, overcast. It ignores other words and cannot generate photographs.
synccontrol --list-models names models that can.
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
	$(BIN)/python -m docs.words
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

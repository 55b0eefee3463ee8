"""The site: walk-throughs do what they say, commands run, messages exist, and it builds without warnings."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from PIL import Image

import preprocess
from docs.drawings import gallery, round_things, strips
from preprocess import controls
from synccontrol import families
from synccontrol.cli import main, parser, terminal
from synccontrol.cli.terminal import COMMANDS
from synccontrol.sampling import schedulers
from tests.test_docs import PAGES, ROOT, commands

BLOCK = re.compile(r"```python(?: title=\"([^\"]+)\")?\n(.*?)```", re.DOTALL)
FEW = ["--steps", "4", "--sync-steps", "1", "--quiet"]  # fewer would leave none at a low strength
DRAWN = [page for page in PAGES if page.name not in ("evaluation.md", "page.md")]  # those have tests of their own


@pytest.fixture
def overlay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Returns a folder whose files count as if they lay in the repository: control types, families, programs."""
    registries: list[tuple[ModuleType, Any]] = [
        (controls, preprocess._registry),
        (families, families._families),
    ]
    before = set(sys.modules)
    for package, registry in registries:
        place = tmp_path / package.__name__.replace("synccontrol.preprocess", "preprocess").replace(".", "/")
        place.mkdir(parents=True)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(place)])
        registry.cache_clear()
    monkeypatch.setattr(schedulers, "TRAITS", dict(schedulers.TRAITS))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    importlib.invalidate_caches()
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]
    monkeypatch.undo()
    for _, registry in registries:
        registry.cache_clear()


@pytest.mark.parametrize(
    "page", ["control", "family", *(pytest.param(page, marks=pytest.mark.slow) for page in ("objective", "solver"))]
)
def test_walk_throughs_do_what_they_say(page: str, overlay: Path) -> None:
    """Their files are put where they say, and the rest of their code is run from top to bottom."""
    found = BLOCK.findall(PAGES[ROOT / "docs" / "extend" / f"{page}.md"])
    for name, code in found:
        if name:
            (overlay / name).write_text(code)
    importlib.invalidate_caches()
    told: dict[str, Any] = {"__name__": page}
    for name, code in found:
        if not name:
            exec(compile(code, page, "exec"), told)
    assert {"control": "posterised", "objective": "Light", "solver": "ends", "family": "montage"}[page] in told


def test_messages_of_the_troubleshooting_exist() -> None:
    sources = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("synccontrol", "preprocess")
        for path in (ROOT / folder).rglob("*.py")
    )
    joined = re.sub(r'"\s*\n\s*f?"', "", sources)  # texts that go on in the next line
    text = PAGES[ROOT / "docs" / "troubleshooting.md"]
    messages = [
        part for line in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for part in re.findall(r"`([^`]+)`", line)
    ]
    assert len(messages) > 30
    assert [message for message in messages if message not in joined] == []


def test_the_gallery_says_the_commands_of_its_pictures() -> None:
    assert PAGES[ROOT / "docs" / "gallery.md"] == gallery.page()
    for name, rows in gallery.GUIDES.items():
        for part in ("guide", *(row.control for row in rows), *map(str, range(1, len(rows) + 1))):
            assert (ROOT / "docs" / gallery.file(name, part)).is_file()


def test_every_strip_is_drawn_and_shown() -> None:
    page = PAGES[ROOT / "docs" / "parameters.md"]
    shown = re.findall(r"\(images/strips/([\w-]+)\.png\)", page)
    assert sorted(shown) == sorted(strips.STRIPS)
    assert all((strips.FOLDER / f"{name}.png").is_file() for name in shown)
    flags = parser.build_parser()._option_string_actions
    assert {strip.flag for strip in strips.STRIPS.values()} <= set(flags)


def test_every_example_is_listed() -> None:
    page = PAGES[ROOT / "docs" / "library.md"]
    examples = [path.name for kind in ("*.py", "*.ipynb") for path in (ROOT / "examples").glob(kind)]
    assert [name for name in examples if f"](../examples/{name})" not in page] == []


def test_a_ball_shows_what_is_ahead_in_front_and_borders_lie_on_it() -> None:
    columns = np.arange(200, dtype=np.uint8)[None, :, None].repeat(100, 0).repeat(3, 2)
    ball = round_things.ball(Image.fromarray(columns), 101)
    assert ball.getpixel((50, 50))[:3] == pytest.approx((100, 100, 100), abs=2)  # the middle of the picture
    assert ball.getpixel((0, 0))[3] == 0
    ahead, behind = np.array([[0.0, 0.0, 1.0]]), np.array([[0.0, 0.0, -1.0]])
    (x,), (y,) = round_things.on_map(ahead, 200, 100)[0]
    assert (x, y) == pytest.approx((100, 50))
    x, y = round_things.on_ball(ahead, 101)
    assert x[0] == pytest.approx(50.5) and 50.5 < y[0] < 75  # seen from above, ahead lies below the middle
    assert np.isnan(round_things.on_ball(behind, 101)[0][0])


def material(folder: Path) -> None:
    """Writes the files that the pages' commands speak of as the reader's own."""
    (folder / "examples").symlink_to(ROOT / "examples")
    noise = np.random.default_rng(0)
    wide, small = ("wide", "sunset", "ring"), ("sketch", "tower", "guides/a", "guides/b")
    for name, size in [*((name, (1024, 256)) for name in wide), *((name, (512, 256)) for name in small)]:
        (folder / name).parent.mkdir(exist_ok=True)
        blocks = noise.integers(0, 255, (8, 16, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize(size).save(folder / f"{name}.png")
    mask = Image.new("L", (1024, 256))
    mask.paste(255, (300, 60, 600, 200))
    mask.save(folder / "lake.png")


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in DRAWN if commands("synccontrol", PAGES[page])], ids=lambda page: page.stem
)
def test_the_pages_commands_run_one_after_the_other(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    material(tmp_path)
    for command in commands("synccontrol", PAGES[page]):
        argv = shlex.split(command)[1:]
        if argv[0] == "upscale":  # minutes each, or a download; what it does has tests of its own
            _, others = COMMANDS["upscale"].load().build_parser().parse_known_args(argv[1:])
            parser.build_parser().parse_args(others)
            continue
        given = {} if argv[0] in COMMANDS else vars(parser.build_parser().parse_args(argv))
        if argv[0] not in COMMANDS:
            argv += ["--offline", *(["--dry-run"] if "model" in given else FEW)]  # others are only planned here
        status, said = main.main(argv), capsys.readouterr().err
        if "controlnet" in given:  # without its configuration it cannot even be planned
            assert status == terminal.BAD_INPUT and "has not been downloaded" in said
        else:
            assert status == terminal.DONE, f"{command}: {said}"


class Links(HTMLParser):
    """Collects what a page links, what it loads, and the places in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attrs}
        self.places |= {known[name] for name in ("id", "name") if name in known}
        address = known.get("href") or known.get("src")
        if address and tag == "a":
            self.links.append(address)
        elif address and known.get("rel") not in ("canonical", "next", "prev"):
            self.loads.append(address)


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=quiet)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = {path: Links(path.read_text(encoding="utf-8")) for path in tmp_path.rglob("*.html")}
    assert len(pages) > len(PAGES)
    for path, page in pages.items():
        assert not [load for load in page.loads if urlsplit(load).netloc], f"{path.name} loads from another server"
        if path.name == "404.html":
            continue  # its addresses are those of the server's root
        for address in [*page.links, *page.loads]:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = Path(os.path.normpath(path.parent / unquote(parts.path))) if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{path.relative_to(tmp_path)} links {address}"
            if parts.fragment and target in pages and not parts.fragment.startswith("__"):
                assert unquote(parts.fragment) in pages[target].places, f"{path.relative_to(tmp_path)} links {address}"

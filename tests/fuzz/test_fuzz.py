"""Whatever comes in: done, or one clear line and status 1 or 2; nothing half written, nothing outside of the output."""

import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from PIL import Image

from synccontrol.batch import model_request, worker
from synccontrol.cli import main
from synccontrol.io.metadata import read_settings
from tests.fuzz import corpus
from tests.fuzz.cases import Case, cases
from tests.fuzz.watch import watched

FEW, MANY = 30, int(os.environ.get("CASES", 300))
HIDDEN = (".part", ".claim", ".fresh")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Returns a folder with the corpus, which is the current one; the model is loaded once."""
    folder = tmp_path_factory.mktemp("fuzz")
    corpus.write(folder / "corpus")
    corpus.write_few(folder / "few")
    (folder / "settings.json").write_text('{"prompt": "x", "width": 96, "steps": 1}')
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    patch.setattr(worker.model_request, "load", cache(model_request.load))
    yield folder
    patch.undo()


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> list[str]:
    return ["--model", str(checkpoint), "--steps", "1", "--sync-weight", "0", "--device", "cpu", "--offline", "--quiet"]


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Returns size and time of every file of the inputs."""
    found = {}
    for path in (*folder.glob("corpus/*"), *folder.glob("few/**/*"), *folder.glob("*.*")):
        status = path.lstat()
        found[str(path)] = status.st_size, status.st_mtime_ns
    return found


def called(argv: list[str]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main.main(argv)
    return status, out.getvalue(), err.getvalue()


def examine(place: Path, argv: list[str], rows: bytes, table: bytes) -> int:
    """Runs one case in a fresh output folder, and returns its exit status when all is as it should be."""
    for name in ("out", "made"):
        shutil.rmtree(place / name, ignore_errors=True)
    (place / "rows.jsonl").write_bytes(rows)
    (place / "rows.csv").write_bytes(table)
    before = tree(place)
    with watched(place / "out", place / "made") as watcher:
        status, out, err = called([*argv])
    assert status in (0, 1, 2), err
    assert "Traceback" not in err and "python -X dev" not in err, err
    lines = err.removesuffix("\n").split("\n")
    if status == 2:
        assert len(lines) == 1 and lines[0].startswith("error: "), err
    if status == 1:
        assert lines[-1].endswith("failed; the others are done"), err
        assert all(line.startswith("error: ") for line in lines if "existing outputs" not in line), err
    assert watcher.strange == []
    assert tree(place) == before
    written = [path for path in (place / "out").rglob("*") if path.is_file()]
    assert not [path for path in written if path.suffix in HIDDEN]
    for path in written:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                picture.load()
            assert read_settings(path)
    if status == 0 and "--dry-run" not in argv and "--help" not in argv:
        assert all(Path(name).is_file() for name in out.removesuffix("\n").split("\n") if "\nlines" not in out)
    return status


@cache
def _names() -> list[str]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return corpus.write(Path(folder) / "corpus")


FILES = [name for name in _names() if name != "again"]  # that is the whole folder, and takes a minute


def check(count: int) -> Callable[..., Any]:
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@check(FEW)
@given(case=cases(FILES))
def test_any_command_line(case: Case, place: Path, model: list[str]) -> None:
    argv, rows, table = case
    examine(place, [*model, *argv], rows, table)


@pytest.mark.slow
@check(MANY)
@given(case=cases(FILES))
def test_very_many_command_lines(case: Case, place: Path, model: list[str]) -> None:
    argv, rows, table = case
    examine(place, [*model, *argv], rows, table)


def test_every_file_of_the_corpus_alone_and_in_its_folder(place: Path, model: list[str]) -> None:
    net = ["--control", "canny", "--prompt", "x", "--fit", "crop", "--height", "64", "--width", "96"]
    alone = {}
    for name in _names():
        path = place / "corpus" / name
        if path.is_file() and path.suffix in (".png", ".jpg", ".webp", ".bmp", ".tif", ".gif", ".avif"):
            guide = ["--guide=" + f"corpus/{name}", "--output", f"out/{name}.png"]
            alone[name] = examine(place, [*model, *net, *guide], b"", b"") == 0
    assert {name for name, fine in alone.items() if fine} >= {
        *(f"good.{suffix}" for suffix in ("png", "jpg", "webp", "bmp", "tif", "gif", "avif")),
        *("cmyk.jpg", "palette.png", "bits.png", "deep.png", "moving.gif", "pages.tif", "turned.jpg", "wrong.jpg"),
        os.fsdecode(b"\xff\xfe.png"),
    }
    assert not any(alone[name] for name in ("empty.png", "cut.png", "text.png", "zeros.png", "bomb.png", "liar.png"))
    assert examine(place, [*model, *net, "--guide", "corpus", "--output", "out"], b"", b"") == 1
    made = sum(path.suffix == ".png" for path in (place / "out").rglob("*"))
    assert made == sum(alone.values()) - 1  # of what is alone, the hidden one

"""`python -m synccontrol.evaluate` on tiny folders: what it says, what it writes, how it fails."""

import base64
import csv
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synccontrol.cli import evaluate

Run = Callable[..., tuple[int, str, str]]
WINDOW, WINDOWS = 64, 3


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that evaluates in an empty folder: flags -> (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def call(*flags: str) -> tuple[int, str, str]:
        status = evaluate.main([*flags, "--window", str(WINDOW), "--offline", "--draws", "100"])
        return status, *capsys.readouterr()

    return call


def window(seed: int) -> np.ndarray:
    """Return a window (64, 64, 3) with colours and blocks of its own."""
    rng = np.random.default_rng(seed)
    blocks = rng.uniform(0, 60, (8, 8, 3)) + rng.uniform(0, 195, 3)
    return np.kron(blocks, np.ones((8, 8, 1))).astype(np.uint8)


def save(path: Path, windows: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.hstack(windows)).save(path)


def folders(count: int = 2) -> None:
    """Write `mixed`, whose windows have nothing in common, and `alike`, whose windows do; the same names in both."""
    for montage in range(count):
        first = window(montage)
        save(Path(f"mixed/{montage}.png"), [window(100 * montage + i) for i in range(1, WINDOWS + 1)])
        save(Path(f"alike/{montage}.png"), [first, np.roll(first, 8, axis=1), np.roll(first, 16, axis=1)])


def test_a_coherent_folder_is_reported_better(run: Run) -> None:
    folders()
    status, out, err = run("mixed", "alike", "--group", "coherence", "--output", "report")
    assert (status, err) == (0, "")
    results = json.loads(Path("report/results.json").read_text())
    verdicts = {found["metric"]: found["verdict"] for found in results["differences"]}
    assert len(verdicts) >= 4
    assert set(verdicts.values()) == {"better"}
    section = out[out.index("alike minus mixed") :]
    assert all(re.search(rf"^  {re.escape(metric)} .* better$", section, re.MULTILINE) for metric in verdicts)


class Page(HTMLParser):
    """Collects the images of a page, the text of its captions, and every address it names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: dict[str, str] = {}
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attrs}
        self.addresses += [value for name, value in known.items() if name in ("src", "href", "srcset", "action")]
        if tag == "img":
            self.images[known["alt"]] = known["src"]


def test_the_report_page_embeds_every_image(run: Run) -> None:
    folders()
    assert run("mixed", "alike", "--group", "seams", "--stride", "64", "--output", "report")[0] == 0
    text = Path("report/report.html").read_text(encoding="utf-8")
    page = Page(text)
    for name in ("0.png", "1.png"):
        for folder in ("mixed", "alike"):
            kind, _, data = page.images[f"{name}, {folder}"].partition(";base64,")
            assert kind == "data:image/jpeg"
            with (
                Image.open(io.BytesIO(base64.b64decode(data))) as shown,
                Image.open(Path(folder) / name) as real,
            ):
                apart = np.asarray(shown, float) - np.asarray(real, float)
            assert np.abs(apart).mean() < 6  # the very image, but for JPEG
    assert page.addresses
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert "@import" not in text and "url(" not in text and "<script" not in text


def test_the_page_shows_the_guides_and_the_files_agree(run: Run) -> None:
    folders()
    flags = ["--guides", "alike", "--control", "canny", "--group", "control", "--output", "report"]
    status, out, _ = run("alike", *flags)
    assert status == 0
    assert "0.png, guide (canny)" in Page(Path("report/report.html").read_text(encoding="utf-8")).images
    (measured,) = json.loads(Path("report/results.json").read_text())["folders"][0]["measurements"]
    assert (measured["value"], measured["n"]) == (1.0, 2)  # the guide follows itself
    assert re.search(r"canny F1 \(2 px\) +1 \[1, 1\] +2", out)
    with Path("report/metrics.csv").open(newline="") as file:
        assert [float(row["value"]) for row in csv.DictReader(file)] == [1.0]
    with Path("report/montages.csv").open(newline="") as file:
        assert {row["montage"]: float(row["value"]) for row in csv.DictReader(file)} == {"0.png": 1.0, "1.png": 1.0}
    assert sorted(path.name for path in Path("report").glob("*.png")) == ["metrics.png"]


def test_without_output_nothing_is_written(run: Run) -> None:
    folders()
    before = sorted(Path().rglob("*"))
    status, out, _ = run("alike", "--group", "seams", "--stride", "32")
    assert status == 0
    assert "Discontinuity Score, window borders" in out
    assert sorted(Path().rglob("*")) == before


def test_a_report_is_replaced_only_with_overwrite(run: Run) -> None:
    folders()
    flags = ["alike", "--group", "seams", "--stride", "32", "--output", "report"]
    assert run(*flags)[0] == 0
    status, out, err = run(*flags)
    assert (status, out) == (2, "")
    assert "report.html exists" in err
    assert run(*flags, "--overwrite")[0] == 0


BAD = {
    "no folder": (["none"], "none is no folder"),
    "empty folder": (["empty"], "empty holds no images"),
    "two folders of two sizes": (["alike", "wider"], "alike holds montages of 192x64"),
    "a folder twice": (["alike", "./alike"], "named twice"),
    "too narrow": (["narrow"], "2 windows"),
    "no guides": (["alike", "--guides", "narrow", "--control", "canny"], "no guide for 0.png"),
    "unknown control": (["alike", "--guides", "alike", "--control", "smell"], "smell"),
    "guides of unknown control": (["alike", "--guides", "alike"], "--control"),
    "too few for KID": (["alike", "--reference", "alike"], "6 windows of 64 px"),
    "no reference": (["alike", "--reference", "none"], "none is no folder"),
    "unknown group": (["alike", "--group", "taste"], "taste"),
    "unknown flag": (["alike", "--refrence", "x"], "--refrence"),
    "no folder named": ([], "FOLDER"),
    "bad timings": (["slow"], "timings.csv line 2"),
    "output is a file": (["alike", "--output", "alike/0.png"], "cannot be a folder"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line_and_status_2(case: str, run: Run) -> None:
    folders()
    Path("empty").mkdir()
    for path, count in (("sizes/a", 3), ("sizes/b", 4), ("wider/0", 4), ("narrow/a", 1), ("slow/a", 3)):
        save(Path(f"{path}.png"), [window(i) for i in range(count)])
    Path("slow/timings.csv").write_text("montage,seconds\na.png,soon\n")
    before = sorted(Path().rglob("*"))
    flags, message = BAD[case]
    status, out, err = run(*flags)
    assert (status, out) == (2, "")
    assert message in err
    assert (err[:7], err.count("\n")) == ("error: ", 1)
    assert sorted(Path().rglob("*")) == before


def test_skipped_files_are_listed_in_table_and_page(run: Run) -> None:
    folders()
    save(Path("alike/wide.png"), [window(i) for i in range(5)])
    Path("alike/broken.png").write_text("no picture")
    status, out, err = run("alike", "--group", "seams", "--stride", "32", "--output", "report")
    assert (status, err) == (0, "")
    page = Path("report/report.html").read_text(encoding="utf-8")
    for text in ("broken.png is not an image", "1 of another size", "wide.png"):
        assert text in out[out.index("not measured") :] and text in page


def test_help_explains_every_metric(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        evaluate.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 110
    folders()
    assert run("alike", "--stride", "32", "--guides", "alike", "--control", "canny", "--output", "report")[0] == 0
    (scored,) = json.loads(Path("report/results.json").read_text())["folders"]
    metrics = [found["metric"] for found in scored["measurements"]] + [metric for metric, _ in scored["skipped"]]
    explained = set(re.findall(r"^  (\w[\w -]*\w)  ", text, re.MULTILINE))
    for metric in metrics:
        name = re.split(r" \(|, | / ", metric)[0].replace("-ST-Style", "-Style")
        assert name in explained, metric

"""Folders, manifests and variations from the command line."""

import json
import os
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest

from synccontrol.io.metadata import read_settings
from tests.cli.pictures import Run, draw, pixels


def test_any_flag_in_a_row(run: Run, canny: list[str], checkpoint: Path) -> None:
    draw(Path("lists/a.png"))
    draw(Path("lists/anchor.png"), 64, 64)
    depth = [str(checkpoint / "controlnet-depth")]
    rows = [
        {"image": "a.png", "steps": 1, "output": "few.png"},
        {"image": "a.png", "control": ["canny"], "controlnet": [canny[3]], "control_scale": 0.2, "output": "weak.png"},
        {"image": "a.png", "anchor": "anchor.png", "output": "anchored.png"},
        {"image": "a.png", "control": "depth", "controlnet": depth, "detector": "tiny", "output": "depth.png"},
        {"image": "a.png", "output": "plain.png"},
    ]
    Path("lists/rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    status, out, err = run("--guide", "lists/rows.jsonl", "--prompt", "x", *canny)
    assert (status, err) == (0, "")
    assert out.split() == [f"out/{name}.png" for name in ("few", "weak", "anchored", "plain", "depth")]
    few, weak, anchored, deep = (read_settings(Path(f"out/{row['output']}")) for row in rows[:4])
    assert (few["steps"], weak["control_scale"], anchored["anchor"]) == (1, 0.2, "lists/anchor.png")
    assert (deep["control"], deep["detector"]) == (["depth"], ["tiny"])
    assert run("--guide", "lists/a.png", "--prompt", "x", *canny, "--output", "alone.png")[0] == 0
    assert np.array_equal(pixels("alone.png"), pixels("out/plain.png"))


def test_a_manifest_may_name_all_controls_itself(run: Run, checkpoint: Path) -> None:
    draw(Path("a.png"))
    row = {"image": "a.png", "control": "canny", "controlnet": str(checkpoint / "controlnet-canny")}
    Path("rows.jsonl").write_text(json.dumps(row))
    assert run("--guide", "rows.jsonl", "--prompt", "x") == (0, "out/a.png\n", "")
    Path("rows.jsonl").write_text(json.dumps({"image": "a.png"}))
    status, _, err = run("--guide", "rows.jsonl", "--prompt", "x")
    assert (status, err.count("\n")) == (2, 1)
    assert "rows.jsonl line 1: no control says how the image follows its guide" in err


def test_a_wrong_setting_in_a_row_is_one_line(run: Run, canny: list[str]) -> None:
    draw(Path("a.png"))
    for row, message in (
        ({"image": "a.png", "stride": 0}, "rows.jsonl line 1: stride is 0"),
        ({"image": "a.png", "control": ["smell"]}, "smell"),
        ({"image": "a.png", "fit": "squash"}, "unknown fit 'squash'"),
        ({"image": "a.png", "anchor": "none.png"}, "line 1: none.png does not exist"),
        ({"image": "a.png", "prompt": "\udcff"}, ""),
    ):
        Path("rows.jsonl").write_text(json.dumps(row))
        status, out, err = run("--guide", "rows.jsonl", *canny)
        assert (status in (1, 2), out) == (True, "")
        assert message in err
        assert not Path("out").is_dir() or not list(Path("out").glob("*.png"))


def test_ready_made_and_detected_maps_go_together(run: Run, checkpoint: Path) -> None:
    draw(Path("in/a.png"))
    nets = [str(checkpoint / f"controlnet-{control}") for control in ("canny", "depth")]
    both = ["--control", "canny", "--controlnet", nets[0], "--control", "depth", "--controlnet", nets[1]]
    flags = [*both, "--prompt", "x"]
    assert run("--guide", "in", *flags, "--save-control-map", "--output", "all")[0] == 0
    Path("maps").mkdir()
    for control in ("canny", "depth"):
        Path(f"all/a.{control}.png").rename(f"maps/a.{control}.png")
    assert run("--guide", "in", *flags, "--control-map", "depth=maps", "--output", "mixed") == (0, "mixed/a.png\n", "")
    assert np.array_equal(pixels("all/a.png"), pixels("mixed/a.png"))
    assert read_settings(Path("mixed/a.png"))["control_map"] == ["", "maps/a.depth.png"]
    assert run("--settings", "mixed/a.png", "--output", "again.png", model=[]) == (0, "again.png\n", "")
    assert np.array_equal(pixels("all/a.png"), pixels("again.png"))
    for wrong, message in (
        (["--control-map", "maps/a.depth.png"], "1 --control-map for 2 --control"),
        (["--guide", "in", "--control-map", "depth=maps", "--control-map", "depth=maps"], "is one too many"),
        (["--control-map", "depth=maps"], "1 of 2 --control have no --control-map, and no --guide"),
        (["--guide", "in", "--control-map", "depth=maps", "--detector", "a", "--detector", "b"], "2 --detector for 1"),
    ):
        status, _, err = run(*flags, *wrong)
        assert (status, err.count("\n")) == (2, 1)
        assert message in err


def test_variations(run: Run, canny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    draw(Path("a.png"))
    flags = ["--guide", "a.png", "--prompt", "x", *canny]
    assert run(*flags, "--seeds", "3,0-1")[1].split() == [f"out/a-seed{seed}.png" for seed in (3, 0, 1)]
    assert run(*flags, "--seed", "3", "--output", "alone.png")[0] == 0
    assert np.array_equal(pixels("alone.png"), pixels("out/a-seed3.png"))
    assert run(*flags, "--seed", "1", "--count", "2")[1:] == ("out/a-seed2.png\n", "")
    assert run(*flags, "--seed", "random", "--output", "some.png")[0] == 0
    assert read_settings(Path("some.png"))["seed"] < 2**32
    for wrong, message in (
        (["--seeds", "1-"], "write seeds and ranges of seeds, like 0-9,12"),
        (["--seeds", "9-1"], "a range goes up"),
        (["--seeds", f"0-{2**63}"], "at most 100000"),
        (["--seeds", str(2**64)], "between 0 and"),
        (["--count", "0"], "--count is 0"),
        (["--count", "2", "--seeds", "1"], "exclude each other"),
        (["--count", "2", "--output", "x.png"], "must be a folder"),
        (["--seed", "some"], "invalid"),
    ):
        status, _, err = run(*flags, *wrong)
        assert (status, err.count("\n")) == (2, 1), wrong
        assert message in err


def test_a_sheet_of_all_pictures(run: Run, canny: list[str]) -> None:
    draw(Path("in/a&b.png"))
    draw(Path("in/ü #.png"))
    Path("in/broken.png").write_text("no picture")
    flags = ["--guide", "in", "--prompt", "<x>", *canny, "--save-control-map", "--report"]
    assert run(*flags)[0] == 1
    page = Path("out/sheet.html").read_text(encoding="utf-8")
    assert "<h1>2 of 3 images in out</h1>" in page
    assert "&lt;x&gt; · seed 0 · " in page
    assert "in/broken.png is not an image that can be read" in page
    links = [unquote_to_bytes(link) for link in re.findall(r'src="([^"]+)"', page)]
    assert len(links) == 7  # the broken guide, too
    assert all((Path("out") / os.fsdecode(link)).is_file() for link in links)
    Path("out/sheet.html").unlink()
    Path("in/broken.png").unlink()
    assert run(*flags)[0] == 0  # there is nothing left to make
    assert Path("out/sheet.html").exists()
    status, _, err = run("--prompt", "x", "--width", "96", "--report")
    assert (status, err.count("\n")) == (2, 1)

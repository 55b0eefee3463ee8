"""Composing from the command line: what is asked for is drawn, forecast, written down, and drawn again."""

from pathlib import Path

import numpy as np
from PIL import Image

from synccontrol.files import metadata
from tests.command.pictures import Run, draw, pixels


def test_regions_are_forecast_drawn_and_repeated(run: Run) -> None:
    draw(Path("guide.png"))
    levels = np.zeros((64, 160), np.uint8)
    levels[:, 80:] = 200
    Image.fromarray(levels).save("levels.png")
    flags = ["--region", "grey 0: a red hill | avoid: fog", "--region", "grey 200: a blue sea"]
    flags += ["--region-map", "levels.png", "--prompt", "dawn", "--width", "160", "--stride", "4"]
    status, out, _ = run(*flags, "--dry-run")
    assert status == 0 and "4 in a call; 6 views, one for every region that a window touches" in out
    assert "region   grey 0: a red hill | avoid: fog" in out
    assert run(*flags, "--output", "a.png")[0] == 0
    assert run("--settings", "a.png", "--output", "b.png", model=[])[0] == 0
    assert np.array_equal(pixels("a.png"), pixels("b.png"))
    stored = metadata.read_settings(Path("a.png"))
    assert stored["region"] == [flags[1], flags[3]] and len(stored["region_map_sha256"]) == 64
    status, _, err = run("--region", "0-30%: x", "--width", "160", "--output", "c.png")
    assert status == 2 and "no region covers" in err and err.count("\n") == 1
    status, _, err = run("--region-map", "levels.png", "--prompt", "x", "--width", "160", "--output", "c.png")
    assert status == 2 and "the region map does nothing" in err


def test_a_picture_starts_from_another_is_forecast_and_repeated(run: Run) -> None:
    draw(Path("start.png"), 128, 64)
    flags = ["--init-image", "start.png", "--strength", "0.5", "--prompt", "x", "--stride", "4", "--guidance-end", "1"]
    status, out, _ = run(*flags, "--dry-run")
    assert status == 0 and "start    init-image start.png, strength 0.5" in out
    assert "canvas   128x64 px" in out and "steps    1, " in out and "network  6 window evaluations" in out
    assert run(*flags, "--output", "a.png")[0] == 0
    assert run("--settings", "a.png", "--output", "b.png", model=[])[0] == 0
    assert np.array_equal(pixels("a.png"), pixels("b.png"))
    assert run(*flags, "--width", "256", "--output", "c.png")[0] == 0
    assert pixels("c.png").shape == (128, 256, 3)
    status, _, err = run("--strength", "0.5", "--prompt", "x", "--width", "128", "--output", "d.png")
    assert status == 2 and "--strength does nothing without an --init-image" in err
    status, _, err = run(*flags, "--overwrite", "--output", "start.png")
    assert status == 2 and "start.png" in err and pixels("start.png").shape == (64, 128, 3)


def test_a_part_is_repainted_and_a_picture_extended_and_both_are_repeated(run: Run) -> None:
    draw(Path("start.png"), 128, 64)
    Image.fromarray(np.repeat(np.arange(128)[None] > 80, 64, 0).astype(np.uint8) * 255).save("mask.png")
    given = ["--init-image", "start.png", "--prompt", "x", "--stride", "4"]
    for flags in (["--mask", "mask.png"], ["--extend", "right", "64"]):
        assert run(*given, *flags, "--output", "a.png", "--overwrite")[0] == 0
        assert run("--settings", "a.png", "--output", "b.png", "--overwrite", model=[])[0] == 0
        assert np.array_equal(pixels("a.png"), pixels("b.png"))
        assert np.array_equal(pixels("a.png")[:, :81], pixels("start.png")[:, :81])
    assert pixels("a.png").shape == (64, 192, 3)
    for flags, words in ((["--extend", "up", "64"], "unknown side"), (["--extend", "right", "x"], "write a side")):
        status, _, err = run(*given, *flags, "--output", "c.png")
        assert status == 2 and words in err and err.count(chr(10)) == 1
    status, _, err = run("--mask", "mask.png", "--prompt", "x", "--width", "128", "--output", "c.png")
    assert status == 2 and "--mask needs an --init-image" in err

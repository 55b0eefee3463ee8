"""Composing from the command line: what is asked for is drawn, forecast, written down, and drawn again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synccontrol.cli import upscale
from synccontrol.io import metadata
from synccontrol.models import loader
from tests.cli.pictures import Run, draw, pixels


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
    for flags in (["--mask", "mask.png"], ["--outpaint", "right", "64"]):
        assert run(*given, *flags, "--output", "a.png", "--overwrite")[0] == 0
        assert run("--settings", "a.png", "--output", "b.png", "--overwrite", model=[])[0] == 0
        assert np.array_equal(pixels("a.png"), pixels("b.png"))
        assert np.array_equal(pixels("a.png")[:, :81], pixels("start.png")[:, :81])
    assert pixels("a.png").shape == (64, 192, 3)
    out = run(*given, "--outpaint", "right", "64", "--guidance-end", "1", "--dry-run")[1]
    assert "windows  5 of 64x64 px" in out and "network  12 window evaluations" in out  # two of them are kept wholly
    for flags, words in ((["--outpaint", "up", "64"], "unknown side"), (["--outpaint", "right", "x"], "write a side")):
        status, _, err = run(*given, *flags, "--output", "c.png")
        assert status == 2 and words in err and err.count(chr(10)) == 1
    status, _, err = run("--mask", "mask.png", "--prompt", "x", "--width", "128", "--output", "c.png")
    assert status == 2 and "--mask needs an --init-image" in err


def test_a_tall_landscape_is_upscaled_unless_rows_are_wanted(run: Run) -> None:
    given = ["--prompt", "x", "--width", "320", "--height", "128", "--stride", "4", "--upscale-strength", "0.5"]
    given += ["--draft-strength", "0"]
    status, out, _ = run(*given, "--dry-run")
    assert status == 0 and "canvas   160x64 px" in out and "upscaled, and denoised again:" in out
    assert out.count("canvas   ") == 2 and "canvas   320x128 px" in out
    assert run(*given, "--output", "a.png")[0] == 0
    assert run("--settings", "a.png", "--output", "b.png", model=[])[0] == 0
    assert np.array_equal(pixels("a.png"), pixels("b.png")) and pixels("a.png").shape == (128, 320, 3)
    for rows in (["--tall-canvas", "rows"], ["--preset", "paper"]):
        assert run(*given, *rows, "--dry-run")[1].count("canvas   ") == 1
    stored = {**metadata.read_settings(Path("a.png")), "tall_canvas": None}
    Path("old.json").write_text(json.dumps(stored))
    assert run("--settings", "old.json", "--dry-run", model=[])[1].count("canvas   ") == 1
    assert stored["upscale_color_match"] == "source"
    # Pictures that were made when there was no choice come out as they were.
    Path("old.json").write_text(json.dumps({**stored, "tall_canvas": "upscale", "upscale_color_match": None}))
    assert run("--settings", "old.json", "--output", "c.png", model=[])[0] == 0
    assert metadata.read_settings(Path("c.png"))["upscale_color_match"] == "none"


def test_a_finished_picture_is_upscaled_by_its_own_settings(
    run: Run, checkpoint: Path, canny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    draw(Path("guide.png"), 128, 64)
    flags = ["--guide", "guide.png", *canny, "--region", "0-64: a hill", "--prompt", "dawn", "--stride", "4"]
    assert run(*flags, "--output", "a.png")[0] == 0

    def enlarged(*flags: str) -> tuple[int, str, str]:
        status = upscale.main([*flags, "--device", "cpu", "--quiet"])
        return status, *capsys.readouterr()

    assert enlarged("a.png", "--strength", "0.5") == (0, "out/a-2x.png\n", "")
    stored = metadata.read_settings(Path("out/a-2x.png"))
    assert pixels("out/a-2x.png").shape == (128, 256, 3)
    assert (stored["prompt"], stored["control"], stored["strength"]) == ("dawn", ["canny"], 0.5)
    assert (stored["color_match"], stored["upscale_color_match"]) == ("source", "source")
    assert stored["region"] == ["0.000000-50.000000% x 0.000000-100.000000%: a hill"]
    assert enlarged("a.png", "--by", "4", "--strength", "0.5", "--output", "c.png")[0] == 0
    assert pixels("c.png").shape == (256, 512, 3)
    shutil.copytree(checkpoint, "other")
    net = ["--control", "canny", "--controlnet", "other/controlnet-canny", "--guide", "guide.png"]
    assert enlarged("a.png", "--model", "other", "--strength", "0.5", "--output", "d.png", *net)[0] == 0
    other, own = metadata.read_settings(Path("d.png")), loader.defaults("other")
    assert (stored["steps"], stored["stride"], stored["prompt"]) == (2, 4, other["prompt"])
    assert (other["steps"], other["stride"]) == (own.sampling.steps, own.windows.stride)
    for wrong, words in (
        (["missing.png"], "missing.png"),
        (["--prompt", "x", "a.png"], "the image comes first"),
        (["a.png", "--by", "3"], "--by"),
    ):
        status, _, err = enlarged(*wrong)
        assert status == 2 and words in err and err.count("\n") == 1


def test_a_tile_controlnet_follows_the_picture_where_the_model_has_one() -> None:
    words = upscale._controls(Path("a.png"), {"control": ["depth"], "guide": "g.png"}, {"model": "sd15"})
    assert words == ["--control", "depth", "--control", "tile", "--guide", "g.png", "--control-map", "tile=a.png"]
    assert upscale._controls(Path("a.png"), {"control": ["depth"], "model": "tiny"}, {}) == []


def test_a_controlnet_for_inpainting_follows_the_picture(run: Run, checkpoint: Path) -> None:
    draw(Path("start.png"), 128, 64)
    draw(Path("guide.png"), 128, 64, 1)
    Image.fromarray(np.repeat(np.arange(128)[None] > 80, 64, 0).astype(np.uint8) * 255).save("mask.png")
    net = str(checkpoint / "controlnet-canny")
    given = ["--control", "inpaint", "--controlnet", net, "--prompt", "x", "--stride", "4"]
    start = ["--init-image", "start.png", "--mask", "mask.png"]
    other = ["--control", "canny", "--controlnet", net, "--guide", "guide.png", "--save-control-map"]
    for more in ([], other):
        flags = [*given, *start, *more, "--overwrite"]
        assert run(*flags, "--output", "a.png") == (0, "a.png\n", "")
        assert run("--settings", "a.png", "--output", "b.png", "--overwrite", model=[])[0] == 0
        assert np.array_equal(pixels("a.png"), pixels("b.png"))
    assert metadata.read_settings(Path("a.png"))["control"] == ["inpaint", "canny"]
    assert pixels("a.canny.png").shape == (64, 128, 3) and not Path("a.inpaint.png").exists()
    ready = ["--control", "canny", "--controlnet", net, "--control-map", "a.canny.png"]
    assert run(*given, *start, *ready, "--output", "c.png")[0] == 0
    assert np.array_equal(pixels("a.png"), pixels("c.png"))
    for flags in ([*given, "--width", "128"], [*given, "--init-image", "start.png", "--guide", "guide.png"]):
        status, _, err = run(*flags, "--output", "d.png")
        assert status == 2 and err.count("\n") == 1

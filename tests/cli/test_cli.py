"""The command line on a tiny checkpoint: what it writes, what it says, and how it fails."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

from synccontrol.cli import main
from synccontrol.io.metadata import read_settings
from tests.cli.pictures import Run, draw, pixels


def test_one_guide_gives_one_picture(run: Run, canny: list[str]) -> None:
    draw(Path("wide.png"))
    status, out, err = run("--guide", "wide.png", "--prompt", "hills", *canny, "--save-control-map")
    assert (status, err) == (0, "")
    assert out.split() == ["out/wide.png"]
    assert pixels("out/wide.png").shape == (64, 160, 3)
    assert pixels("out/wide.canny.png").shape == (64, 160, 3)
    assert set(np.unique(pixels("out/wide.canny.png"))) == {0, 255}


def test_the_size_is_exactly_as_asked(run: Run) -> None:
    assert run("--prompt", "hills", "--width", "133", "--height", "67", "--output", "a.png")[0] == 0
    assert pixels("a.png").shape == (67, 133, 3)


def test_same_seed_same_picture_and_settings_make_it_again(run: Run, canny: list[str]) -> None:
    draw(Path("wide.png"))
    flags = ["--guide", "wide.png", "--prompt", "hills", *canny, "--sync-weight", "3", "--loop"]
    assert run(*flags, "--seed", "3", "--output", "a.png")[0] == 0
    assert run(*flags, "--seed", "3", "--output", "b.png")[0] == 0
    assert run(*flags, "--seed", "4", "--output", "c.png")[0] == 0
    assert run("--settings", "a.png", "--output", "d.png", model=[])[0] == 0
    assert np.array_equal(pixels("a.png"), pixels("b.png"))
    assert not np.array_equal(pixels("a.png"), pixels("c.png"))
    assert np.array_equal(pixels("a.png"), pixels("d.png"))
    assert read_settings(Path("a.png")) == read_settings(Path("d.png"))
    assert read_settings(Path("a.png"))["sync_weight"] == 3


def test_a_ready_made_map_is_used_as_it_is(run: Run, canny: list[str]) -> None:
    guide = draw(Path("wide.png"))
    run("--guide", str(guide), "--prompt", "x", *canny, "--save-control-map", "--output", "a.png")
    status, _, err = run("--control-map", "a.canny.png", "--prompt", "x", *canny, "--output", "b.png")
    assert (status, err) == (0, "")
    assert np.array_equal(pixels("a.png"), pixels("b.png"))


def test_a_folder_is_mirrored_bad_files_are_reported_and_the_rest_go_on(run: Run, canny: list[str]) -> None:
    draw(Path("guides/a.png"), seed=1)
    draw(Path("guides/deep/a.jpg"), seed=2)
    Path("guides/broken.png").write_text("no picture")
    status, out, err = run("--guide", "guides", "--prompt", "x", *canny)
    assert status == 1
    assert sorted(out.split()) == ["out/a.png", "out/deep/a.png"]
    assert "guides/broken.png" in err.splitlines()[0]
    assert not Path("out/broken.png").exists()
    before = Path("out/a.png").stat().st_mtime_ns
    Path("guides/broken.png").unlink()
    assert run("--guide", "guides", "--prompt", "x", *canny) == (0, "", "")
    assert Path("out/a.png").stat().st_mtime_ns == before
    status, out, _ = run("--guide", "guides", "--prompt", "y", *canny, "--overwrite")
    assert (status, len(out.split())) == (0, 2)
    assert Path("out/a.png").stat().st_mtime_ns > before


def test_a_picture_does_not_depend_on_its_neighbours(run: Run, canny: list[str]) -> None:
    draw(Path("guides/a.png"), seed=1)
    draw(Path("guides/b.png"), seed=2)
    run("--guide", "guides", "--prompt", "x", *canny)
    run("--guide", "guides/b.png", "--prompt", "x", *canny, "--output", "alone.png")
    assert np.array_equal(pixels("out/b.png"), pixels("alone.png"))


def test_a_manifest_gives_each_guide_its_prompt(run: Run, canny: list[str]) -> None:
    draw(Path("guides/a.png"), seed=1)
    rows = [{"image": "guides/a.png", "prompt": "own", "seed": 5}]
    Path("rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    assert run("--guide", "rows.jsonl", "--prompt", "common", *canny)[0] == 0
    settings = read_settings(Path("out/guides/a.png"))
    assert (settings["prompt"], settings["seed"]) == ("own", 5)


def test_dry_run_writes_nothing(run: Run, canny: list[str]) -> None:
    draw(Path("wide.png"))
    two = ["--steps", "2", "--sync-steps", "1"]
    status, out, _ = run("--guide", "wide.png", *canny, "--dry-run", "--stride", "4", "--preset", "paper", *two)
    assert status == 0
    # 20 cells in windows of 8, stride 4: 4 windows; 2 steps, guided; the 3 that follow the anchor once more in sync
    assert "windows  4 " in out
    assert "2, 0 of them with the anchor's statistics, 1 synced (" in out
    assert "22 window evaluations, 6 of them with a backward pass" in out
    given = ("--guide", "wide.png", *canny, "--dry-run", "--stride", "4")
    status, out, _ = run(*given, "--draft-strength", "0")
    assert status == 0
    assert "2, 2 of them with the anchor's statistics, 0 synced" in out
    assert "12 window evaluations, 0 of them with a backward pass" in out  # the second step is not guided
    status, out, _ = run(*given, "--steps", "4")
    assert status == 0
    # rough: 1 window, of 4 steps 2 guided; over it: 4 windows, of 3 steps 2 guided
    rough, over = out.split("stretched, and denoised again:")
    assert "draft, the whole canvas squeezed:" in rough and "6 window evaluations" in rough
    assert "steps    3, 3 of them with the anchor's statistics" in over and "20 window evaluations" in over
    assert sorted(path.name for path in Path().iterdir()) == ["wide.png"]


def test_a_dry_run_refuses_what_the_solver_cannot_do(run: Run, checkpoint: Path) -> None:
    given = ("--prompt", "x", "--width", "160", "--height", "64", "--dry-run")
    status, out, err = run(*given, "--steps", "2000")
    assert (status, out) == (2, "") and "cannot run 2000 steps; use 1000 at most" in err
    shutil.copytree(checkpoint, "own")
    index = json.loads(Path("own/model_index.json").read_text())
    own = ("--model", "own", "--scheduler", "model", "--steps", "4")
    for scheduler in ("EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler"):  # what many models come with
        Path("own/model_index.json").write_text(json.dumps({**index, "scheduler": ["diffusers", scheduler]}))
        status, _, err = run(*given, *own, "--preset", "paper", "--sync-weight", "0")
        assert (status, err) == (0, "")
    status, out, err = run(*given, *own)
    assert (status, out) == (2, "") and "sync would be lost" in err


@pytest.mark.parametrize("scheduler", ["HeunDiscreteScheduler", "KDPM2DiscreteScheduler"])
def test_a_dry_run_counts_what_the_run_does_with_schedulers_that_look_twice(
    scheduler: str, run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(checkpoint, "own")
    index = json.loads(Path("own/model_index.json").read_text())
    Path("own/model_index.json").write_text(json.dumps({**index, "scheduler": ["diffusers", scheduler]}))
    given = [
        "--prompt",
        "x",
        "--width",
        "160",
        "--height",
        "64",
        "--model",
        "own",
        "--scheduler",
        "model",
        "--stride",
        "4",
    ]
    given += ["--steps", "4", "--preset", "paper", "--sync-weight", "0", "--guidance-scale", "3"]
    out = run(*given, "--dry-run", model=[])[1]
    seen, forward = [], UNet2DConditionModel.forward

    def counted(self: Any, sample: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(len(sample))
        return forward(self, sample, *arguments, **options)

    monkeypatch.setattr(UNet2DConditionModel, "forward", counted)
    assert run(*given, model=[])[0] == 0
    assert sum(seen) == 4 * 2 * 7  # 4 windows, guided, 4 steps of which the last looks once
    assert f"  {sum(seen)} window evaluations" in out


def test_a_sphere_is_twice_as_wide_as_high_and_says_so(run: Run, canny: list[str]) -> None:
    draw(Path("wide.png"), 256, 128)
    flags = ["--projection", "equirectangular", "--prompt", "hills", "--stride", "5", "--sync-weight", "0"]
    status, _, err = run(*flags, *canny, "--guide", "wide.png", "--width", "208", "--output", "a.png")
    assert (status, err) == (0, "")
    assert pixels("a.png").shape == (104, 208, 3)
    assert read_settings(Path("a.png"))["projection"] == "equirectangular"
    with Image.open("a.png") as image:
        assert 'FullPanoWidthPixels="208"' in image.info["XML:com.adobe.xmp"]
    status, out, _ = run(*flags, *canny, "--guide", "wide.png", "--dry-run", "--output", "b.png")
    assert status == 0
    assert "256x128 px, 32x16 cells, a sphere" in out


OBJECTIVE = ["--width", "160", "--sync-weight", "1"]
BAD = {
    "missing guide": (["--guide", "none.png", "--control", "canny"], "none.png does not exist"),
    "text as guide": (["--guide", "text.png", "--control", "canny"], "text.png is not an image"),
    "guide cut short": (["--guide", "cut.png", "--control", "canny"], "cut short"),
    "tiny guide": (["--guide", "small.png", "--control", "canny"], "enlarged more than 8 times"),
    "empty folder": (["--guide", "empty", "--control", "canny"], "holds no images"),
    "guide without control": (["--guide", "wide.png"], "--guide needs --control, one of"),
    "unknown control": (["--guide", "wide.png", "--control", "smell"], "smell"),
    "no such ControlNet": (["--guide", "wide.png", "--control", "pose"], "name one with --controlnet"),
    "unknown model": (["--model", "gpt", "--width", "160"], "unknown model 'gpt'"),
    "unknown scheduler": (["--scheduler", "magic", "--width", "160"], "known: model, ddim"),
    "unknown objective": (["--objective", "taste", "--width", "160"], "known: lpips"),
    "below one window": (["--width", "40", "--height", "64"], "at least 64x64"),
    "stride of a window": (["--width", "160", "--stride", "8"], "stride is 8"),
    "stride zero": (["--width", "160", "--stride", "0"], "stride is 0"),
    "negative weight": (["--width", "160", "--sync-weight", "-1"], "sync weight is -1"),
    "negative steps": (["--width", "160", "--steps", "-1"], "steps is -1"),
    "not a number": (["--width", "160", "--guidance-scale", "nan"], "guidance scale is nan"),
    "anchor beyond": (["--width", "160", "--anchor", "99"], "anchor is 99"),
    "no size": (["--prompt", "x"], "needs --width"),
    "no such device": (["--width", "160", "--device", "cuda:7"], "'cuda:7' is not there"),
    "unknown device": (["--width", "160", "--device", "abacus"], "unknown device"),
    "hub id without network": (["--model", "nobody/nothing", "--width", "512", "--offline"], "--model tiny"),
    "no folder to write to": (["--width", "160", "--output", "text.png/a.png"], "cannot be written"),
    "output exists": (["--width", "160", "--output", "wide.png"], "wide.png exists"),
    "output of another format": (["--width", "160", "--output", "a.gif"], "a.png"),
    "loop that cannot close": (["--width", "161", "--loop"], "use 160 or 168"),
    "loop of a sphere": (["--width", "208", "--loop", "--projection", "equirectangular"], "leave out the loop"),
    "sphere of another aspect": (["--width", "300", "--height", "104", "--projection", "equirectangular"], "not 2:1"),
    "sphere with gaps": (["--width", "208", "--stride", "8", "--projection", "equirectangular"], "leaves gaps"),
    "unknown flag": (["--widht", "160"], "--widht"),
    "bad manifest": (["--guide", "bad.jsonl", "--control", "canny"], "line 1 is not JSON"),
    "control without guide": (["--control", "canny", "--width", "160"], "needs a --guide"),
    "empty guide": (["--guide", "", "--control", "canny"], "argument --guide: it is empty"),
    "empty anchor": (["--width", "160", "--anchor", ""], "argument --anchor: it is empty"),
    "seed beyond all": (["--width", "160", "--seed", "99999999999999999999"], "between 0 and 18446744073709551615"),
    "negative seed": (["--width", "160", "--seed", "-1"], "seed is -1"),
    "decay above 1": (["--width", "160", "--sync-decay", "7"], "sync decay is 7"),
    "shrunk to nothing": (
        ["--width", "160", "--sync-weight", "1", "--sync-shrink", "64"],
        "leaves 1 px of a window of 64 px",
    ),
    "shrunk too far": (["--width", "160", "--sync-weight", "1", "--sync-shrink", "3"], "use at most 2"),
    "control ends before it starts": (
        ["--width", "160", "--control-start", "0.8", "--control-end", "0.2"],
        "control start is 0.8 and control end 0.2",
    ),
    "guide and map": (
        ["--guide", "wide.png", "--control-map", "wide.png", "--control", "canny"],
        "--guide and --control-map exclude each other",
    ),
    "detector and map": (
        ["--detector", "opencv", "--control-map", "wide.png", "--control", "canny"],
        "--detector and --control-map exclude each other",
    ),
    "row out of the output": (["--guide", "out.jsonl", "--control", "canny"], "leads out of the folder"),
    "settings with a wrong type": (["--settings", "wrong.json", "--width", "160"], "prompt is 5; it must be text"),
    "prompt that is no text": (["--prompt", "\udcff", "--width", "160"], "not UTF-8 text"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line_and_status_2(case: str, run: Run) -> None:
    wide = draw(Path("wide.png"))
    draw(Path("small.png"), 12, 4)
    Path("cut.png").write_bytes(wide.read_bytes()[:200])
    Path("text.png").write_text("no picture")
    Path("bad.jsonl").write_text("{")
    Path("out.jsonl").write_text('{"image": "wide.png", "output": "../wide.png"}')
    Path("wrong.json").write_text('{"prompt": 5}')
    Path("empty").mkdir()
    before = sorted(Path().rglob("*"))
    flags, message = BAD[case]
    status, out, err = run(*flags)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before


def test_a_map_of_another_aspect_is_refused(run: Run, canny: list[str]) -> None:
    draw(Path("map.png"), 160, 64)
    status, _, err = run("--control-map", "map.png", *canny, "--width", "200", "--height", "64")
    assert status == 2
    assert "160x64, another aspect than the canvas of 200x64" in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_is_refused(run: Run) -> None:
    Path("locked").mkdir(mode=0o500)
    assert run("--width", "160", "--output", "locked/a.png")[0] == 2


def test_not_a_number_in_the_latents_names_the_step(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["conv_out.bias"] = torch.full_like(tensors["conv_out.bias"], torch.nan)
    save_file(tensors, weights, metadata={"format": "pt"})
    status, _, err = run("--model", str(broken), "--width", "160", "--sync-weight", "0", "--output", "a.png")
    assert status == 2
    assert "not finite after step 1 of 2" in err
    assert not Path("a.png").exists()


def test_help_shows_the_defaults_of_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    def text(*flags: str) -> str:
        assert main.main([*flags], prog="cli.py") == 0
        return " ".join(capsys.readouterr().out.split())

    assert text("--help").startswith("usage: cli.py")
    assert "cells between neighbouring windows; below the window's size (default: 20)" in text("--help")
    assert "denoising steps (default: 12)" in text("--help")
    assert "denoising steps (default: 6)" in text("--help", "--preset", "fast")
    assert "denoising steps (default: 18)" in text("-h", "--model", "sd15")
    assert "denoising steps (default: 50)" in text("-h", "--model", "sd15", "--preset", "paper")
    choices = "'model' is the model's own: model, ddim, euler, euler_a, dpmpp_2m, unipc (default: dpmpp_2m)"
    assert choices in text("--model", "sd15", "--help")
    assert "denoising steps (default: 50)" in text("--help", "--model", "nobody/nothing")  # the published ones

"""What a user is told who mistypes something, or asks for something that does nothing."""

from pathlib import Path

import pytest

from synccontrol.cli import main
from tests.cli.pictures import Run, draw


@pytest.mark.parametrize(
    ("flags", "hint"),
    [
        (["--colors", "source"], "did you mean --color-match?"),
        (["--negative", "people"], "did you mean --negative-prompt?"),
        (["--loras", "a.safetensors"], "did you mean --lora?"),
        (["--control", "deepth"], "did you mean depth? it has canny, depth, pose"),
        (["--control", "depth", "--detector", "tinny"], "depth has no detector 'tinny'; did you mean tiny? use "),
        (["--control", "depth", "--model", "tyny"], "did you mean tiny?"),
        (["--control", "depth", "--preset", "fasst"], "did you mean fast?"),
    ],
)
def test_a_mistyped_name_is_answered_with_the_nearest(
    flags: list[str], hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    draw(Path("wide.png"), 512, 256)
    assert main.main(["--guide", "wide.png", "--prompt", "x", "--offline", "--dry-run", *flags]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and hint in err


def test_a_bare_call_shows_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([]) == 2
    err = capsys.readouterr().err
    assert err.startswith("usage: synccontrol --control TYPE --guide IMAGE --prompt TEXT")
    assert '  synccontrol --control depth --guide wide.png --prompt "' in err


def test_help_lists_the_control_types(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--help"]) == 0
    assert "control types: canny, depth, lineart, mlsd, normal, pose, qr, scribble, segmentation" in (
        capsys.readouterr().out
    )


def test_a_dry_run_adds_up(run: Run, canny: list[str]) -> None:
    for number, name in enumerate("abc"):
        draw(Path(f"in/{name}.png"), seed=number)
    plain = ["--guide", "in", *canny, "--stride", "4", "--preset", "paper", "--sync-steps", "0"]
    out = run(*plain, "--dry-run")[1]
    # 20 cells in windows of 8 cells, stride 4: 4 windows in each of 3 images; 2 steps, both guided
    assert "total    3 images, 12 windows, 48 window evaluations" in out.splitlines()
    assert "time     unknown: " in out.splitlines()[-1]
    assert run(*plain)[0] == 0
    out = run(*plain, "--seed", "7", "--overwrite", "--dry-run")[1]
    last = out.splitlines()[-1]
    assert last.startswith("time     about ") and last.endswith(" s, by the images of these settings in results.jsonl")


def test_a_dry_run_of_a_series_in_the_style_of_its_first(run: Run, canny: list[str]) -> None:
    for name in "ab":
        draw(Path(f"in/{name}.png"))
    status, out, err = run("--guide", "in", *canny, "--prompt", "x", "--style-image", "first", "--dry-run")
    assert (status, err) == (0, "")
    assert "total    2 images" in out and not Path("out").exists()


@pytest.mark.parametrize(
    ("flags", "note"),
    [
        (["--sync-weight", "0", "--objective", "lpips"], "--objective does nothing here: --sync-weight is 0"),
        (["--sync-weight", "0", "--sync-steps", "1"], "--sync-steps does nothing here: --sync-weight is 0"),
        (["--sync-adain", "0", "--sync-adain-steps", "2"], "--sync-adain-steps does nothing here: --sync-adain is 0"),
        (["--draft-strength", "0", "--draft-noise", "1.1"], "--draft-noise does nothing here: --draft-strength is 0"),
        (["--sync-shared-style", "0.3"], "--sync-shared-style does nothing here: there is no --region"),
        (["--guidance-scale", "1", "--guidance-end", "0.5"], "--guidance-end does nothing here: --guidance-scale is 1"),
        (
            ["--tall-canvas", "rows", "--upscale-strength", "0.2"],
            "--upscale-strength does nothing here: --upscale is 1",
        ),
        (["--ip-scale", "0.5"], "--ip-scale does nothing here: there is no --ip-adapter"),
        (["--control-scale", "0.5"], "--control-scale does nothing here: there is no --control"),
    ],
)
def test_a_setting_that_does_nothing_is_noted(flags: list[str], note: str, run: Run, checkpoint: Path) -> None:
    model = ["--model", str(checkpoint), "--steps", "2"]
    status, out, _ = run("--prompt", "x", "--width", "160", "--height", "64", *flags, "--dry-run", model=model)
    assert status == 0 and note in out.splitlines()
    needless = [flag for flag in flags if flag.startswith("--")][-1]
    without = flags[: flags.index(needless)]
    assert (
        "does nothing"
        not in run("--prompt", "x", "--width", "160", "--height", "64", *without, "--dry-run", model=model)[1]
    )


def test_a_size_that_changes_is_noted(run: Run, canny: list[str]) -> None:
    draw(Path("wide.png"), 480, 75)
    given = ["--guide", "wide.png", *canny, "--prompt", "x", "--dry-run"]
    assert "  fit      the guide is 480x75 and the image 410x64, by the model's native size; " in run(*given)[1]
    assert "native size" not in run(*given, "--height", "75")[1]

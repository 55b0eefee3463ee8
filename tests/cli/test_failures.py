"""What goes wrong with one picture, with a run, and with files that are there already."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import preprocess
from synccontrol.cli import main
from synccontrol.io.metadata import read_settings
from tests.cli.pictures import Run, draw, pixels


def test_inputs_are_never_overwritten(run: Run, canny: list[str]) -> None:
    draw(Path("pics/a.png"))
    draw(Path("own.png"), seed=1)
    before = [Path(name).read_bytes() for name in ("pics/a.png", "own.png")]
    cases = (
        ["--guide", "pics/a.png", "--output", "pics/a.png"],
        ["--guide", "pics", "--output", "pics"],
        ["--guide", "pics/a.png", "--output", "pics"],
        ["--control-map", "own.png", "--output", "own.png"],
        ["--guide", "pics/a.png", "--anchor", "own.png", "--output", "own.png"],
    )
    for flags in cases:
        status, out, err = run(*flags, *canny, "--prompt", "x", "--overwrite")
        assert (status, out, err.count("\n")) == (2, "", 1), flags
        assert "is an input" in err or "holds the guides" in err
    run("--prompt", "x", "--width", "96", "--output", "made.png")
    status, _, err = run("--settings", "made.png", "--output", "made.png", "--overwrite")
    assert (status, err.count("\n")) == (2, 1)
    assert "the output made.png is an input" in err
    assert [Path(name).read_bytes() for name in ("pics/a.png", "own.png")] == before


def test_a_person_s_changes_of_a_map_stay(run: Run, canny: list[str]) -> None:
    draw(Path("wide.png"))
    Path("a.canny.png").write_bytes(b"edited")
    flags = ["--guide", "wide.png", "--prompt", "x", *canny, "--save-control-map", "--output", "a.png"]
    status, _, err = run(*flags)
    assert (status, err.count("\n")) == (2, 1)
    assert "a.canny.png exists" in err
    assert Path("a.canny.png").read_bytes() == b"edited"
    assert not Path("a.png").exists()
    assert run(*flags, "--overwrite")[0] == 0
    assert pixels("a.canny.png").shape == (64, 160, 3)


def test_two_controls_of_one_type_are_two_maps(run: Run, checkpoint: Path) -> None:
    draw(Path("wide.png"))
    net = ["--control", "canny", "--controlnet", str(checkpoint / "controlnet-canny")]
    flags = ["--guide", "wide.png", "--prompt", "x", *net, *net, "--save-control-map", "--output", "a.png"]
    assert run(*flags)[0] == 0
    assert sorted(path.name for path in Path().glob("a.*")) == ["a.canny-2.png", "a.canny.png", "a.png"]


FAILURES = {
    "out of memory": torch.OutOfMemoryError("no memory"),
    "no memory of the process": MemoryError(),
    "of a library": RuntimeError("cv2 said no\nat line 5"),
    "of the disk": OSError(5, "Input/output error"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_whatever_happens_to_one_picture_fails_it_alone(
    case: str, run: Run, canny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(Path("in/a.png"), seed=1)
    draw(Path("in/b.png"), seed=2)
    load = preprocess.load

    def moody(*args: object, **options: object) -> preprocess.Detector:
        detect, calls = load("canny"), iter([FAILURES[case], None])

        def maybe(guide: object) -> object:
            error = next(calls)
            if error is not None:
                raise error
            return detect(guide)  # type: ignore[arg-type]

        return maybe  # type: ignore[return-value]

    monkeypatch.setattr(preprocess, "load", moody)
    status, out, err = run("--guide", "in", "--prompt", "x", *canny)
    assert (status, out) == (1, "out/b.png\n")
    first, last = err.splitlines()
    assert first.startswith("error: in/a.png: ")
    assert last == "error: 1 of 2 images failed; the others are done"


def test_what_every_picture_needs_is_missed_once(
    run: Run, canny: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    draw(Path("in/a.png"), seed=1)
    draw(Path("in/b.png"), seed=2)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))

    def no_network(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    objectives_of = ["--objective", "lpips", "--sync-weight", "1", "--sync-steps", "1"]
    status, out, err = run("--guide", "in", "--prompt", "x", *canny, *objectives_of)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "objective lpips needs torchvision's vgg weights" in err


def test_a_guide_is_named_once(run: Run, canny: list[str]) -> None:
    draw(Path("in/a.png"))
    Path("in/text.png").write_text("no picture")
    status, _, err = run("--guide", "in", "--prompt", "x", *canny)
    assert status == 1
    assert err.splitlines()[0].count("in/text.png") == 1


def test_interrupted_is_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from synccontrol.batch.worker import Worker

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Worker, "generate", interrupt)
    status, _, err = run("--prompt", "x", "--width", "96")
    assert (status, err) == (130, "error: interrupted; finished images stay\n")


def test_what_is_kept_though_it_is_not_what_was_asked_for_is_said(run: Run, canny: list[str]) -> None:
    draw(Path("in/a.webp"))
    flags = ["--guide", "in", *canny]
    assert run(*flags, "--prompt", "x")[0] == 0
    assert run(*flags, "--prompt", "x") == (0, "", "")
    status, _, err = run(*flags, "--prompt", "y", "--seed", "1")
    assert status == 0
    assert "1 of the existing outputs were generated with another prompt, seed (out/a.png)" in err
    draw(Path("in/a.png"), seed=1)  # would have had the name of the first one's picture
    assert run(*flags, "--prompt", "x") == (0, "out/a.png.png\n", "")
    assert run(*flags, "--prompt", "x") == (0, "", "")
    draw(Path("in/a.webp"), seed=3)
    assert "generated with another guide (out/a.png)" in run(*flags, "--prompt", "x")[2]


def test_several_rows_of_a_guide_are_several_pictures(run: Run, canny: list[str]) -> None:
    draw(Path("a.png"))
    draw(Path("map.png"), 192, 64, seed=1)
    rows = [
        {"image": "a.png", "seed": 1},
        {"image": "a.png", "seed": 2, "prompt": "own", "width": 240},
        {"control_map": "map.png", "output": "ready/x.png"},
        {"control_map": ["map.png", "map.png"]},
    ]
    Path("rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    status, out, err = run("--guide", "rows.jsonl", "--prompt", "x", *canny)
    assert (status, out.split()) == (1, ["out/a.png", "out/a-2.png", "out/ready/x.png"])
    assert "2 control maps for 1 controls; give one for each" in err
    assert pixels("out/a-2.png").shape == (96, 240, 3)
    assert pixels("out/ready/x.png").shape == (64, 192, 3)
    assert [read_settings(Path("out", name))["seed"] for name in ("a.png", "a-2.png")] == [1, 2]


def test_file_names_of_any_bytes(run: Run, canny: list[str], checkpoint: Path) -> None:
    draw(Path("plain.png")).rename(os.fsdecode(b"\xfff.png"))
    flags = ["--guide", b"\xfff.png", "--control", "canny", "--controlnet", str(checkpoint / "controlnet-canny")]
    done = subprocess.run(
        [sys.executable, "-m", "synccontrol", "--model", str(checkpoint), "--steps", "1", "--sync-steps", "0", *flags],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(main.__file__).parents[2])},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"out/\xfff.png\n"), done.stderr
    again = run("--settings", os.fsdecode(b"out/\xfff.png"), "--output", "again.png", model=[])
    assert again == (0, "again.png\n", "")
    assert np.array_equal(pixels(os.fsdecode(b"out/\xfff.png")), pixels("again.png"))


def test_a_dry_run_needs_no_detectors_weights_and_shows_all_settings(
    run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a detector was loaded")

    monkeypatch.setattr(preprocess, "load", never)
    draw(Path("wide.png"))
    flags = ["--control", "depth", "--detector", "nobody/nothing", "--controlnet", str(checkpoint / "controlnet-depth")]
    status, out, err = run("--guide", "wide.png", *flags, "--control-scale", "0.7", "--dry-run")
    assert (status, err) == (0, "")
    for part in ("guidance-scale 7.5", "control-scale 0.7", "scheduler model", "window-weights ramp"):
        assert part in out
    for part in ("sync-weight 0.0", "sync-adain 1.0", "anchor middle"):
        assert part in out
    status, _, err = run("--guide", "wide.png", "--control", "smell", *flags[2:], "--dry-run")
    assert (status, err.count("\n")) == (2, 1)
    assert "unknown control 'smell'" in err


def test_one_file_may_be_the_map_of_two_controls(run: Run, checkpoint: Path) -> None:
    draw(Path("wide.png"))
    flags = ["--prompt", "x"]
    for control in ("canny", "depth"):
        net = str(checkpoint / f"controlnet-{control}")
        flags += ["--control", control, "--controlnet", net, "--control-map", "wide.png"]
    status, _, err = run(*flags, "--output", "a.png")
    assert status == 0, err
    assert read_settings(Path("a.png"))["control_map"] == ["wide.png", "wide.png"]


def test_a_strength_for_each_control(run: Run, checkpoint: Path) -> None:
    draw(Path("wide.png"))
    nets = [str(checkpoint / f"controlnet-{control}") for control in ("canny", "depth")]
    flags = ["--control", "canny", "--controlnet", nets[0], "--control-scale", "1.5"]
    flags += ["--control", "depth", "--controlnet", nets[1], "--control-scale", "0.3"]
    assert run("--guide", "wide.png", "--prompt", "x", *flags, "--output", "a.png")[0] == 0
    assert read_settings(Path("a.png"))["control_scale"] == [1.5, 0.3]
    status, _, err = run("--guide", "wide.png", *flags, "--control-scale", "1", "--output", "b.png")
    assert (status, err.count("\n")) == (2, 1)
    assert "control scale has 3 values for 2 controls; give one for all, or one for each" in err


def test_pipes_are_not_waited_for(run: Run, canny: list[str]) -> None:
    for name in ("pipe.png", "pipe.json", "pipe.jsonl"):
        os.mkfifo(name)
    pose = ["--control", "pose", "--controlnet", canny[3]]
    for flags in (
        ["--settings", "pipe.png"],
        ["--settings", "pipe.json", "--width", "96"],
        [*canny, "--guide", "pipe.png"],
        [*canny, "--guide", "pipe.jsonl"],
        [*canny, "--control-map", "pipe.png"],
        [*pose, "--control-map", "pipe.json"],
        ["--width", "96", "--anchor", "pipe.png"],
    ):
        status, out, err = run(*flags)
        assert (status, out, err.count("\n")) == (2, "", 1), flags

"""The bench: what it draws, in which order, and that a run that is cut short goes on."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.frontier import __main__ as bench
from benchmarks.frontier import blurred, draw, kid, material
from benchmarks.frontier.methods import methods
from preprocess.people.skeleton import draw as draw_people
from synccontrol import Montage, SamplingConfig, SyncConfig, WindowConfig
from synccontrol.models import loader
from synccontrol.spec.image_settings import PRESETS

METHODS = ("independent", "multidiffusion")
SMALL = ["--steps", "1", "--width", "128", "--per-cell", "2", "--controls", "none", "--offline"]


def test_the_order_keeps_cells_balanced(tmp_path: Path) -> None:
    jobs = draw.plan(tmp_path, material.CONTROLS, [*METHODS, "published-all"], per_cell=3, all_steps=1)
    assert len(jobs) == 3 * 4 * 2 + 4
    for cut in range(len(jobs) + 1):
        counts = Counter((job.control, job.method) for job in jobs[:cut] if job.method != "published-all")
        every = [counts[control, method] for control in material.CONTROLS for method in METHODS]
        assert max(every) - min(every) <= 1


def test_what_is_drawn_is_not_planned_again(tmp_path: Path) -> None:
    jobs = draw.plan(tmp_path, ["none"], METHODS, per_cell=2, all_steps=0)
    jobs[1].path.parent.mkdir(parents=True)
    jobs[1].path.touch()
    assert draw.plan(tmp_path, ["none"], METHODS, per_cell=2, all_steps=0) == [jobs[0], *jobs[2:]]


def test_guides_are_the_exact_maps_of_their_scenes() -> None:
    depth, pose = (material.item(1, control, 64, 256) for control in ("depth", "pose"))
    assert depth.guide is not None and pose.guide is not None
    assert np.array_equal(np.asarray(depth.guide)[..., 0], np.round(depth.scene.depth * 255).astype(np.uint8))
    assert np.array_equal(np.asarray(pose.guide), draw_people(pose.scene.people, 64, 256))
    assert len(depth.scene.people) == 0 < len(pose.scene.people)
    again = material.item(1, "depth", 64, 256)
    assert np.array_equal(depth.scene.image, again.scene.image)


def test_prompts_are_half_vague_and_name_people_under_pose_only() -> None:
    prompts = {control: [material.item(i, control, 64, 128).prompt for i in range(4)] for control in ("none", "pose")}
    assert [prompt == "a landscape" for prompt in prompts["none"]] == [True, False, True, False]
    assert [prompt == "a landscape with people" for prompt in prompts["pose"]] == [True, False, True, False]
    assert all(prompt.endswith("with people") for prompt in prompts["pose"])
    assert not any("people" in prompt for prompt in prompts["none"])


def test_the_published_methods_are_the_published_sync() -> None:
    presets = {name: loader.defaults("tiny", name) for name in PRESETS}
    known = methods(presets)
    own = presets["default"]
    paper = SamplingConfig(steps=50, scheduler="ddim", guidance_scale=4.0, control_scale=1.5).complete()
    for name, steps in (("multidiffusion", 0), ("published-5", 5), ("published-10", 10), ("published-all", 50)):
        settings = known[name].settings
        assert (settings.sampling, settings.windows) == (paper, WindowConfig(stride=8).complete())
        assert settings.sync.active == (steps > 0)
        assert not steps or settings.sync == SyncConfig(steps=steps, objective=own.sync.objective).complete()
    assert known["default"].settings == own
    assert known["unsynced"].settings == replace(own, sync=SyncConfig(weight=0.0).complete())
    assert not known["independent"].overlap and known["multidiffusion"].overlap


@pytest.fixture(scope="module")
def drawn(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a bench drawn with the tiny random checkpoint, without sync."""
    out = tmp_path_factory.mktemp("bench")
    flags = ["--model", str(checkpoint), "--out", str(out), *SMALL, "--methods", *METHODS]
    assert bench.main(flags) == 0
    return out


def test_independent_windows_are_pictures_of_their_own(drawn: Path, checkpoint: Path) -> None:
    studio = draw.Studio(str(checkpoint), 128, 1, device="cpu", dtype="float32", offline=True)
    montage = Montage.from_pretrained(str(checkpoint), offline=True)
    made = studio.item("none", 1)
    with Image.open(draw.cell(drawn, "none", "independent") / f"{made.name}.png") as image:
        halves = [np.asarray(image)[:, :64], np.asarray(image)[:, 64:]]
    for number, half in enumerate(halves):
        alone = montage(
            made.prompt,
            height=64,
            width=64,
            seed=2 * made.seed + number,
            sampling=studio.methods["independent"].settings.sampling,
            windows=WindowConfig(stride=4).complete(),
            sync=SyncConfig(weight=0.0).complete(),
        )
        assert np.array_equal(np.asarray(alone.image), half)


def test_results_are_written_and_a_second_run_draws_nothing(
    drawn: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (drawn / "results" / "RESULTS.md").read_text(encoding="utf-8")
    assert all(f"`{method}`" in page for method in (*METHODS, "rendered"))
    assert (drawn / "results" / "none.jpg").exists()
    (row,) = [line for line in page.splitlines() if line.startswith("| montages |")][1:]
    assert row == "| montages | 2 | 2 | 2 |"
    results = json.loads((drawn / "results" / "results.json").read_text())
    assert {one["label"] for one in results["controls"]["none"]} == {*METHODS, "rendered"}
    files = {path: path.stat().st_mtime_ns for folder in ("montages", "scores") for path in (drawn / folder).rglob("*")}
    flags = ["--model", str(checkpoint), "--out", str(drawn), *SMALL, "--methods", *METHODS]
    assert bench.main(flags) == 0
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert "montages to draw" not in capsys.readouterr().out


def test_kid_is_compared_on_the_montages_that_both_have() -> None:
    real = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    near = {f"{i}.png": real[4 * i : 4 * i + 4] for i in range(8)}
    far = {name: features + 1 for name, features in near.items()} | {"more.png": real[:4] + 9}
    n, own, other, (low, high) = kid.compared(near, far, real)
    assert n == 8 and low < own - other < high < 0


def test_blurred_panoramas_are_written_once(tmp_path: Path) -> None:
    scene = np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    source = draw.cell(tmp_path, "none", "rendered") / "00.png"
    source.parent.mkdir(parents=True)
    Image.fromarray(scene).save(source)
    for name, deviation in (("sharp", 0.0), ("soft", 2.0), ("soft", 9.0)):  # the last finds a picture, and keeps it
        blurred.blur(tmp_path, "none", name, deviation)
    sharp, soft = (
        np.asarray(Image.open(draw.cell(tmp_path, "none", name) / "00.png")).astype(float) for name in ("sharp", "soft")
    )
    assert np.array_equal(sharp, scene)
    assert 0.1 < soft[8:-8, 8:-8].std() / scene.std() < 0.2  # white noise, by 1 / (2 sqrt(pi) 2)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--width", "100"], "multiple of 64"),
        (["--methods", "magic"], "no method 'magic'"),
        (["--steps", "3"], "drawn otherwise"),
        (["--per-cell", "0"], "per-cell is 0"),
    ],
)
def test_bad_input_gets_one_line(
    flags: list[str], message: str, drawn: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(["--model", str(checkpoint), "--out", str(drawn), *SMALL, *flags]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1

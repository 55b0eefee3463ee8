"""`--settings` makes a picture again, says when it cannot promise to, and touches nothing else."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synccontrol.io import metadata
from tests.cli.pictures import Run, draw, pixels


@pytest.fixture
def loud(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Returns a function like `run`, without --quiet, that returns the notes on stderr."""
    from synccontrol.cli import main

    def call(*flags: str) -> tuple[int, str, str]:
        return main.main(["--device", "cpu", *flags]), *capsys.readouterr()

    return call


def settings(path: str, **changes: object) -> Path:
    """Writes a PNG's settings as JSON, changed."""
    target = Path(path).with_suffix(".json")
    target.write_text(json.dumps({**metadata.read_settings(Path(path)), **changes}))
    return target


def test_only_what_decides_the_picture_is_read(run: Run, canny: list[str]) -> None:
    guide = draw(Path("wide.png"))
    before = guide.read_bytes()
    assert run("--guide", "wide.png", "--prompt", "x", *canny, "--output", "a.png")[0] == 0
    harmful = {"output": "wide.png", "overwrite": True, "save_control_map": True, "dry_run": True, "device": "abacus"}
    settings("a.png", **harmful)
    assert run("--settings", "a.json", model=[]) == (0, "out/wide.png\n", "")
    assert guide.read_bytes() == before
    assert sorted(path.name for path in Path().rglob("*.png")) == ["a.png", "wide.png", "wide.png"]
    assert np.array_equal(pixels("a.png"), pixels("out/wide.png"))


def test_what_is_left_out_is_said(run: Run, loud: Run) -> None:
    assert run("--prompt", "x", "--width", "96", "--output", "a.png")[0] == 0
    settings("a.png", output="b.png", promt="y")
    status, _, err = loud("--settings", "a.json", "--output", "c.png")
    assert status == 0
    assert "a.json: output, promt do not decide an image, and are left out" in err
    status, _, err = loud("--settings", "a.png", "--output", "d.png")
    assert status == 0
    assert "left out" not in err and "may differ" not in err


def test_a_preset_in_place_of_a_pictures_settings_leaves_its_ring_closed(run: Run) -> None:
    assert (
        run("--prompt", "x", "--width", "128", "--loop", "--anchor", "1", "--steps", "2", "--output", "a.png")[0] == 0
    )
    assert run("--settings", "a.png", "--preset", "paper", "--output", "b.png")[0] == 0
    before, after = (metadata.read_settings(Path(name)) for name in ("a.png", "b.png"))
    assert (after["loop"], after["anchor"]) == (before["loop"], before["anchor"]) == (True, 1)
    assert (before["window_weights"], after["window_weights"]) == ("ramp", "uniform")


def test_why_the_same_picture_cannot_be_promised_is_one_line(run: Run, loud: Run, canny: list[str]) -> None:
    draw(Path("wide.png"))
    assert run("--guide", "wide.png", "--prompt", "x", *canny, "--output", "a.png")[0] == 0
    stored = metadata.read_settings(Path("a.png"))
    assert set(stored["versions"]) == {"synccontrol", "torch", "diffusers"}
    assert (stored["device"], stored["dtype"]) == ("cpu", "float32")
    draw(Path("wide.png"), seed=1)
    settings("a.png", versions={**stored["versions"], "torch": "1.13"}, device="cuda:0", dtype="float16")
    status, _, err = loud("--settings", "a.json", "--output", "b.png")
    assert status == 0
    (line,) = [line for line in err.replace("\r", "\n").splitlines() if "may differ" in line]
    assert line in loud("--settings", "a.json", "--dry-run")[1].splitlines()
    for part in ("torch 1.13, here ", "device cuda:0, here cpu", "dtype float16, here float32", "another wide.png"):
        assert part in line


def test_a_relative_guide_lies_beside_the_settings_too(
    run: Run, canny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(Path("wide.png"))
    draw(Path("anchor.png"), 64, 64)
    flags = ["--guide", "wide.png", "--anchor", "anchor.png", "--prompt", "x", *canny, "--save-control-map"]
    assert run(*flags, "--output", "a.png")[0] == 0
    assert run("--control-map", "a.canny.png", "--prompt", "x", *canny, "--output", "c.png")[0] == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert run("--settings", "../a.png", "--output", "b.png", model=[]) == (0, "b.png\n", "")
    assert np.array_equal(pixels("../a.png"), pixels("b.png"))
    assert run("--settings", "../c.png", "--output", "d.png", model=[]) == (0, "d.png\n", "")
    assert np.array_equal(pixels("../c.png"), pixels("d.png"))


def test_a_picture_from_before_there_was_a_scaffold_or_noise_of_its_own_is_drawn_without(run: Run) -> None:
    flags = ["--prompt", "x", "--width", "160", "--steps", "3"]
    for name, unknown, then in (
        ("a.png", ["draft_noise"], ["--draft-noise", "1"]),
        ("b.png", ["draft_strength", "draft_noise"], ["--draft-strength", "0"]),
    ):
        assert run(*flags, *then, "--output", name)[0] == 0
        stored = {key: value for key, value in metadata.read_settings(Path(name)).items() if key not in unknown}
        Path("old.json").write_text(json.dumps(stored))
        assert run("--settings", "old.json", "--output", f"again-{name}", model=[])[0] == 0
        assert np.array_equal(pixels(name), pixels(f"again-{name}"))


def test_flags_replace_what_belongs_together(run: Run, canny: list[str]) -> None:
    draw(Path("wide.png"))
    draw(Path("map.png"), seed=1)
    assert run("--guide", "wide.png", "--prompt", "x", *canny, "--detector", "opencv", "--output", "a.png")[0] == 0
    assert run("--settings", "a.png", "--control-map", "map.png", "--output", "b.png", model=[])[0] == 0
    ready = metadata.read_settings(Path("b.png"))
    assert (ready["guide"], ready["control_map"], ready["detector"]) == (None, ["map.png"], [])
    assert run("--settings", "b.png", "--guide", "wide.png", "--output", "c.png", model=[])[0] == 0
    assert np.array_equal(pixels("a.png"), pixels("c.png"))


WRONG = {
    "a number as prompt": ({"prompt": 5}, "prompt is 5; it must be text"),
    "a text as seed": ({"seed": "7"}, "seed is '7'; it must be a whole number"),
    "a seed beyond all": ({"seed": 2**64}, "seed is 18446744073709551616; it must be a whole number between 0 and"),
    "a guide that is none": ({"guide": ["a.png"]}, "guide is ['a.png']; it must be text"),
    "no such sampler": ({"scheduler": "magic"}, "unknown scheduler 'magic'; known:"),
    "a function": ({"objective": "taste"}, "'taste' is unknown, or a function"),
    "a list": ([1], "no settings, which are a JSON object"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_settings_get_one_line(case: str, run: Run) -> None:
    values, message = WRONG[case]
    Path("a.json").write_text(json.dumps(values))
    status, out, err = run("--settings", "a.json", "--width", "96")
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_picture_too_large_to_be_opened_has_no_settings(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (400, 400)).save("large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    status, _, err = run("--settings", "large.png", "--width", "96")
    assert status == 2
    assert "large.png holds no settings" in err and err.count("\n") == 1

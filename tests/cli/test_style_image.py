"""A series in one style: all pictures of a run follow a picture, or the first of them."""

from pathlib import Path

import pytest

from synccontrol.io.metadata import read_settings
from synccontrol.io.provenance import source
from tests.cli.pictures import Run, draw


@pytest.fixture
def guides() -> Path:
    for number, name in enumerate("abc"):
        draw(Path(f"in/{name}.png"), seed=number)
    return Path("in")


def test_all_follow_the_first_of_them(run: Run, canny: list[str], guides: Path) -> None:
    flags = ["--guide", str(guides), "--prompt", "x", *canny, "--style-image", "first"]
    status, out, err = run(*flags)
    assert (status, err, out.split()) == (0, "", ["out/a.png", "out/b.png", "out/c.png"])
    assert read_settings(Path("out/a.png"))["anchor"] == "middle"
    for name in "bc":
        settings = read_settings(Path(f"out/{name}.png"))
        assert settings["anchor"] == "out/a.png"
        assert settings["anchor_sha256"] == source("anchor", Path("out/a.png")).sha256
    assert run("--guide", "in/b.png", "--prompt", "x", *canny, "--anchor", "out/a.png", "--output", "b.png")[0] == 0
    assert Path("b.png").read_bytes() == Path("out/b.png").read_bytes()
    assert run("--guide", "in/b.png", "--prompt", "x", *canny, "--output", "alone.png")[0] == 0
    assert Path("alone.png").read_bytes() != Path("out/b.png").read_bytes()


def test_a_run_that_was_cut_short_goes_on_with_the_same_first(run: Run, canny: list[str], guides: Path) -> None:
    flags = ["--guide", str(guides), "--prompt", "x", *canny, "--style-image", "first"]
    assert run(*flags)[0] == 0
    whole = Path("out/c.png").read_bytes()
    Path("out/c.png").unlink()
    status, out, err = run(*flags)
    assert (status, out.split(), err) == (0, ["out/c.png"], "")
    assert Path("out/c.png").read_bytes() == whole


def test_all_follow_a_picture(run: Run, canny: list[str], guides: Path) -> None:
    draw(Path("style.png"), 100, 80)
    assert run("--guide", str(guides), "--prompt", "x", *canny, "--style-image", "style.png")[0] == 0
    assert {read_settings(path)["anchor"] for path in Path("out").glob("*.png")} == {"style.png"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--style-image", "first"], "--style-image first is for several images"),
        (["--style-image", "in/a.png", "--anchor", "0"], "--style-image and --anchor exclude each other"),
        (["--style-image", "in/a.png", "--sync-adain", "0"], "--style-image does nothing without sync"),
        (["--style-image", "none.png"], "none.png does not exist"),
    ],
)
def test_what_makes_no_sense_gets_a_line(
    run: Run, canny: list[str], guides: Path, flags: list[str], message: str
) -> None:
    status, out, err = run("--guide", "in/b.png", "--prompt", "x", *canny, *flags)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err

"""The commands beside drawing: maps without a picture, what is installed, completion, the version; numbered names."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

import synccontrol
from synccontrol.cli import completion, doctor, main
from synccontrol.cli.terminal import COMMANDS
from synccontrol.models import listing, registry
from tests.cli.pictures import Run, draw, pixels


@pytest.mark.parametrize("flag", ["--version", "-h"])
def test_help_and_version(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) if flag == "--version" else pytest.MonkeyPatch.context():
        assert main.main([flag]) == 0
    out = capsys.readouterr().out
    if flag == "--version":
        assert out == f"synccontrol {synccontrol.__version__}\n"
        return
    assert all(f"  {name} " in out and command.about in out for name, command in COMMANDS.items())


def test_a_command_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["mapp"]) == 2
    assert capsys.readouterr().err.startswith("error: there is no command 'mapp'; did you mean map? use map, ")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return draw(Path("guides/wide.png"), 320, 128)


def test_maps_are_those_that_a_picture_follows(here: Path, run: Run, canny: list[str], checkpoint: Path) -> None:
    assert run("--guide", str(here), *canny, "--save-control-map", "--output", "drawn.png")[0] == 0
    assert main.main(["map", "--guide", str(here), "--control", "canny", "--model", str(checkpoint)]) == 0
    assert np.array_equal(pixels("out/wide.canny.png"), pixels("drawn.canny.png"))
    assert sorted(path.name for path in Path("out").iterdir()) == ["wide.canny.png"]


def test_options_of_detectors_change_the_map_which_gets_a_number(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["map", "--guide", str(here), "--control", "canny"]
    strict = ["--option", "low=900", "--option", "canny.high=1e3"]
    assert [main.main([*flags, *more]) for more in ([], [], strict)] == [0, 0, 0]
    assert capsys.readouterr().out.split() == ["out/wide.canny.png", "out/wide.canny.png", "out/wide.canny-2.png"]
    assert pixels("out/wide.canny-2.png").sum() < pixels("out/wide.canny.png").sum()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["canny", "--option", "lo=3"], "canny take low=100.0, high=200.0"),
        (["canny", "--option", "depth.output=distance"], "canny take low"),
        (["canny", "--option", "low=much"], "it is a number, like 100.0"),
        (["softedge", "--detector", "sobel", "--option", "safe=yes"], "it is true or false"),
        (["tile", "--option", "low=3"], "tile take no options"),
        (["canny", "--option", "low=300"], "low must be at least 0 and at most high"),
        (["smell"], "smell"),
        (["canny", "--detector", "opencv", "--detector", "opencv"], "2 detectors for 1"),
    ],
)
def test_maps_that_cannot_be_made(flags: list[str], said: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["map", "--guide", str(here), "--control", *flags]) == 2
    assert said in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_folder_of_maps_goes_on_past_a_bad_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("guides/broken.png").write_text("no picture")
    assert main.main(["map", "--guide", "guides", "--control", "canny", "--control", "qr"]) == 1
    out, err = capsys.readouterr()
    assert out.split() == ["out/wide.canny.png", "out/wide.qr.png"]
    assert err.startswith("error: guides/broken.png: ")


def test_every_try_gets_a_name(run: Run) -> None:
    """The very same picture is kept; another one takes the next number, and so do variations."""
    flags = ["--prompt", "hills", "--width", "64", "--height", "64"]
    assert run(*flags)[1] == "out/montage.png\n"
    assert run(*flags)[1] == "out/montage.png\n"
    assert run(*flags, "--seed", "1")[1] == "out/montage-2.png\n"
    assert run(*flags, "--seed", "2")[1] == "out/montage-3.png\n"
    assert run(*flags, "--seed", "1")[1] == "out/montage-2.png\n"
    before = pixels("out/montage.png")
    assert run(*flags, "--seed", "3", "--overwrite")[1] == "out/montage.png\n"
    assert not np.array_equal(pixels("out/montage.png"), before)
    assert run(*flags, "--count", "2")[1].split() == ["out/montage-seed0.png", "out/montage-seed1.png"]
    assert run(*flags[2:], "--prompt", "sea", "--count", "2")[1].split() == [
        "out/montage-seed0-2.png",
        "out/montage-seed1-2.png",
    ]


def test_maps_take_the_number_of_their_picture(run: Run, canny: list[str]) -> None:
    draw(Path("wide.png"))
    for seed in ("0", "1", "1"):
        assert run("--guide", "wide.png", *canny, "--seed", seed, "--save-control-map")[0] == 0
    names = sorted(path.name for path in Path("out").glob("*.png"))
    assert names == ["wide-2.canny.png", "wide-2.png", "wide.canny.png", "wide.png"]


def test_the_doctor_says_what_is_here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert main.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"synccontrol {synccontrol.__version__}" in out and "torch 2." in out
    assert "HF_TOKEN is set" in out and "hf_secret" not in out
    assert str(Path.home()) not in out
    assert all(re.search(rf"^  {name} .*(fits|does not fit)", out, re.MULTILINE) for name in registry.PRESETS)


def test_a_broken_installation_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "LIBRARIES", (*doctor.LIBRARIES, "no-such-library"))
    assert main.main(["doctor"]) == 2
    assert "error: no-such-library is missing" in capsys.readouterr().out


def test_what_fits_is_said_with_its_offloading() -> None:
    sdxl = registry.PRESETS["sdxl"]
    ways = [listing.describe_fit(sdxl, memory, offload=True) for memory in (16, 12, 8, 1)]
    assert ways == ["fits", "fits with --offload model", "fits with --offload sequential, slowly", ""]
    assert listing.describe_fit(sdxl, 12, offload=False) == ""


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["synccontrol", "map", "--control", "soft"], "softedge"),
        (["synccontrol", "ma"], "map"),
        (["synccontrol", "--model", "sdx"], "sdxl"),
        (["synccontrol", "--save-c"], "--save-control-map"),
    ],
)
def test_bash_completes(words: list[str], offered: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["completion", "bash"]) == 0
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out)
    asked = f"source {script}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _shtab_synccontrol; echo "
    done = subprocess.run(["bash", "-c", asked + '"${COMPREPLY[@]}"'], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [offered]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_served(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["completion", shell]) == 0
    assert "save-control-map" in capsys.readouterr().out


def test_completion_knows_every_command() -> None:
    text = completion.whole().format_help()
    assert all(name in text for name in COMMANDS)

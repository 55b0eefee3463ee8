"""The page's values as flags: what differs from the preset, and a command that says the same."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from synccontrol.cli.parser import build_parser
from synccontrol.errors import ConfigError
from synccontrol.models.registry import PRESETS
from synccontrol.studio import form_values

PRESET = form_values.preset_values(PRESETS["tiny"].defaults)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {}),
        ({"prompt": "a hill", "fit": "exact", "model": "tiny", "preset": "default"}, {"prompt": "a hill"}),
        ({"seed": 0, "width": 0, "height": None}, {}),
        ({"seed": 2**64 - 1, "width": 1024}, {"width": 1024, "seed": 2**64 - 1}),
        ({"steps": 12, "guidance_scale": 4}, {}),
        ({"steps": 20, "loop": True, "anchor": "3"}, {"steps": 20, "loop": True, "anchor": 3}),
        ({"control_scale": "1.5", "anchor": "middle"}, {}),
        ({"control_scale": "1.5, 0.3"}, {"control_scale": [1.5, 0.3]}),
        ({"control": ["depth"], "detector": []}, {"control": ["depth"]}),
    ],
)
def test_only_what_differs_becomes_a_flag(values: dict[str, Any], expected: dict[str, Any]) -> None:
    assert form_values.flags_of(values, PRESET) == expected


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("steps", "many", "steps is 'many'; it must be a whole number"),
        ("steps", 2.5, "whole number"),
        ("anchor", "/etc/passwd", "anchor is '/etc/passwd'; it must be a whole number"),
        ("guidance_scale", "x", "must be a number"),
        ("control_scale", "1 x", "must be a number"),
        ("seed", 1e400, "whole number"),
    ],
)
def test_what_cannot_be_a_value_gives_its_line(name: str, value: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        form_values.flags_of({name: value}, PRESET)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"prompt": "a 'wide' \"hill\"\n--seed 3 $(rm)", "negative_prompt": "--steps"},
        {"prompt": "-x", "seed": 7, "steps": 20, "loop": True, "guess_mode": False},
        {"control": ["depth", "canny"], "control_scale": [1.0, 0.5], "detector": ["tiny", "opencv"]},
        {"outpaint": "right 256", "strength": 0.5},
        {"anchor": -1, "sync_weight": 0.5, "objective": "stlpips"},
    ],
)
def test_the_command_says_the_same(given: dict[str, Any]) -> None:
    program, *argv = shlex.split(form_values.command(given))
    assert program == "synccontrol"
    assert vars(build_parser().parse_args(argv)) == given


def test_files_stand_by_their_name_in_the_command() -> None:
    given = {"guide": Path("/tmp/secret/7/valley.png"), "control_map": ["canny=/tmp/secret/8/map.canny.png"]}
    command = form_values.command({"control": ["canny"], **given})
    assert "secret" not in command
    assert command.endswith("--guide valley.png --control-map canny=map.canny.png")


def test_a_control_without_a_guide_gives_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="depth has no guide to follow"):
        form_values.job({"control": ["depth"]}, {}, tmp_path / "a.png")

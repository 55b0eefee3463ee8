"""A region is a line of text, and a line of text a region; what makes no sense is one clear line."""

import pytest

from synccontrol.errors import ConfigError
from synccontrol.spec.region import Region, joined


def test_a_line_says_all_there_is() -> None:
    line = "30-70% x 50-100%: a lake: calm | avoid: people, boats | control: 0.5 | soft: 0.1"
    region = Region.parse(line)
    assert region == Region(
        area="30-70% x 50-100%", prompt="a lake: calm", negative_prompt="people, boats", control_scale=0.5, soft=0.1
    )
    assert str(region) == line
    assert Region.parse("0-35%:a forest") == Region(area="0-35%", prompt="a forest")


@pytest.mark.parametrize(
    ("area", "box"),
    [
        ("0-35%", (0, 0, 350, 200)),
        ("12.5-40% x 50-100%", (125, 100, 400, 200)),
        ("0-512px x 7-64 px", (0, 7, 512, 64)),
        ("100 - 50% x 0-100%", None),
        ("90-10%", (900, 0, 100, 200)),
    ],
)
def test_areas_are_percent_or_pixels(area: str, box: tuple[float, ...] | None) -> None:
    region = Region(area=area, prompt="x")
    assert region.grey is None
    assert box is None or region.box(200, 1000) == box
    assert Region(area="grey 7", prompt="x").grey == 7


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a forest", "has no area"),
        ("left: a forest", "is no area"),
        ("0-35%:", "has no prompt"),
        ("0-135%: x", "beyond 100 %"),
        ("20-20%: x", "ends where it starts"),
        ("0-20% x 60-40%: x", "ends where it starts"),
        ("grey 300: x", "between 0 and 255"),
        ("0-35%: x | lora: a.safetensors", "no option 'lora'; known: avoid, control, soft .LoRAs"),
        ("0-35%: x | control: much", "must be a number"),
        ("0-35%: x | control: -1", "at least 0"),
        ("0-35%: x | soft: 3", "between 0 and 2"),
    ],
)
def test_what_makes_no_sense_is_one_line(line: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        Region.parse(line)
    assert "\n" not in str(caught.value)


def test_what_its_line_cannot_say_is_refused() -> None:
    for prompt in (" x", "x | soft: 1"):
        with pytest.raises(ConfigError, match="an option of the region"):
            Region(area="0-35%", prompt=prompt)


def test_the_prompt_of_all_follows_its_own() -> None:
    assert joined("a lake", "at noon") == "a lake, at noon"
    assert joined("", "at noon") == "at noon" and joined("a lake", "") == "a lake"

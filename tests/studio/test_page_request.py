"""What is asked for, of fields and files: flags, detectors and their options, maps, seeds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from synccontrol.errors import ConfigError, ModelError
from synccontrol.studio.form import regions_value
from synccontrol.studio.request import PageRequest, read_request, seeds
from synccontrol.studio.session import Session
from tests.studio.conftest import MACHINE

Values = Callable[..., dict[str, Any]]


@pytest.fixture
def guided(session: Session) -> Session:
    session.guide = session.place() / "hill.png"
    Image.new("RGB", (128, 64)).save(session.guide)
    return session


def given(values: dict[str, Any], session: Session) -> dict[str, Any]:
    found = read_request(values, session, (str(values["model"]),), offline=True).given
    return {
        name: found[name]
        for name in ("guide", "control", "detector", "control_map", "loop", "projection")
        if name in found
    }


def test_a_guide_is_followed_by_its_controls(values: Values, guided: Session) -> None:
    assert given(values(control0="depth"), guided) == {"guide": guided.guide, "control": ["depth"]}
    both = given(values(control0="depth", control1="canny", detector1="opencv"), guided)
    assert both == {"guide": guided.guide, "control": ["depth", "canny"], "detector": ["tiny", "opencv"]}


def test_a_guide_that_nothing_follows_is_said(values: Values, guided: Session) -> None:
    found = read_request(values(), guided, (values()["model"],), offline=True)
    assert "guide" not in found.given
    assert found.notes == ["no control is chosen, so the guide is not followed"]


def test_ready_made_maps_stand_for_their_control(values: Values, guided: Session) -> None:
    guided.ready[1] = guided.folder / "edges.png"
    found = given(values(control0="depth", control1="canny", detector0="tiny", detector1="opencv"), guided)
    assert found["control_map"] == [f"canny={guided.ready[1]}"]
    assert (found["guide"], found["detector"]) == (guided.guide, ["tiny"])
    assert "guide" not in given(values(control1="canny"), guided)


def test_shapes(values: Values, session: Session) -> None:
    assert given(values(shape="flat"), session) == {}
    assert given(values(shape="ring"), session) == {"loop": True}
    assert given(values(shape="sphere"), session) == {"projection": "equirectangular"}


def test_options_of_detectors_become_maps(values: Values, guided: Session) -> None:
    entered = {"canny:low": 50, "canny:high": 200.0, "depth:output": "distance"}
    found = read_request(values(control0="canny", **entered), guided, (values()["model"],), offline=True)
    assert found.options == {"canny": {"low": 50}}
    drawn = found.with_maps({"canny": Path("/x/map.canny.png")})
    assert drawn.given["control_map"] == ["canny=/x/map.canny.png"] and not drawn.options
    assert "guide" not in drawn.given
    both = read_request(
        values(control0="depth", control1="canny", detector0="tiny", **{"canny:low": 50}),
        guided,
        (values()["model"],),
        True,
    )
    kept = both.with_maps({"canny": Path("/x/map.canny.png")}).given
    assert (kept["guide"], kept["detector"]) == (guided.guide, ["tiny"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "/etc"}, "model '/etc' is not on offer"),
        ({"preset": "x"}, "preset 'x' is not on offer"),
        ({"shape": "cube"}, "shape 'cube' is not on offer"),
        ({"control0": "x"}, "control 'x' is not on offer"),
        ({"control0": "depth", "detector0": "/srv/weights"}, "depth detector '/srv/weights' is not on offer"),
        ({"control0": "depth", "control1": "depth"}, "depth is chosen twice"),
        ({"steps": "x"}, "steps is 'x'"),
    ],
)
def test_what_is_not_on_offer_gives_its_line(
    changes: dict[str, Any], said: str, values: Values, guided: Session
) -> None:
    with pytest.raises(ConfigError, match=said):
        read_request(values(**changes), guided, (values()["model"],), offline=True)


def test_json_is_for_poses(values: Values, session: Session) -> None:
    session.ready[0] = session.folder / "people.json"
    with pytest.raises(ConfigError, match="only the control pose reads"):
        given(values(control0="canny"), session)


def test_regions_become_lines(values: Values, session: Session) -> None:
    drawn = [{"area": "0-30%", "prompt": "a forest", "negative_prompt": "people", "control_scale": 0.5, "soft": 0.1}]
    found = read_request(values(region={"regions": drawn}), session, (values()["model"],), offline=True).given
    assert found["region"] == ["0-30%: a forest | avoid: people | control: 0.5 | soft: 0.1"]
    assert regions_value(found["region"])["regions"] == drawn
    for wrong in ([{"area": "0-30%"}], [3], [{"area": "x", "prompt": "y"}], [{"area": "0-30%", "prompt": ""}]):
        with pytest.raises(ConfigError, match="region"):
            read_request(values(region={"regions": wrong}), session, (values()["model"],), offline=True)


def test_a_start_takes_its_settings_along(values: Values, guided: Session) -> None:
    begun = values(strength=0.5)
    assert "strength" not in read_request(begun, guided, (values()["model"],), offline=True).given
    guided.start = guided.guide
    found = read_request(begun, guided, (values()["model"],), offline=True).given
    assert (found["init_image"], found["strength"]) == (guided.guide, 0.5)
    guided.mask = guided.folder / "mask.png"
    found = read_request(values(strength=0, outpaint="right 64"), guided, (values()["model"],), offline=True).given
    assert (found["mask"], found["outpaint"]) == (guided.mask, "right 64") and "strength" not in found


def test_a_part_is_repainted_with_the_controlnet_for_it(values: Values, guided: Session, checkpoint: Path) -> None:
    def found(**changes: Any) -> PageRequest:
        return read_request(values(inpaint=True, **changes), guided, (values()["model"],), offline=True)

    assert "there is no init image, so there is nothing to inpaint" in found().notes
    assert "control" not in found().given
    guided.start = guided.guide
    assert found().given["control"] == ["inpaint"] and "guide" not in found().given
    both = found(control0="depth")
    assert (both.given["control"], both.given["guide"]) == (["depth", "inpaint"], guided.guide)
    with pytest.raises(ModelError, match="has no ControlNet for 'inpaint'"):
        both.job(MACHINE, guided.folder / "out.png")
    mapped = both.with_maps({"depth": guided.guide})
    assert mapped.given["control_map"] == [f"depth={guided.guide}"] and "guide" not in mapped.given
    mapped.given["controlnet"] = [str(checkpoint / "controlnet-depth")] * 2
    assert mapped.job(MACHINE, guided.folder / "out.png").recipe.request.controls == ("depth", "inpaint")


def test_seeds_of_variations(values: Values) -> None:
    assert seeds(values(seed=5, count=3), 4) == [5, 6, 7]
    assert seeds(values(seed=None, count=None), 4) == [0]
    with pytest.raises(ConfigError, match="between 1 and 4"):
        seeds(values(count=5), 4)

"""A picture is plain data: through JSON and pickle and back it is the same picture."""

import json
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from synccontrol.errors import ConfigError
from synccontrol.spec import settings as config
from synccontrol.spec.image_spec import ANCHOR, CONTROL_MAP, GUIDE, ImageSpec, Source, check, recorded_keys
from synccontrol.spec.region import Region
from synccontrol.spec.settings import SamplingConfig, SyncConfig, WindowConfig, flags

VALLEY = ImageSpec(prompt="a valley", height=256, width=1024, seed=3, model="tiny")
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
SIDE = st.integers(1, 100_000)
POSITIVE = st.floats(0, 1e6) | st.integers(0, 100)


def one_or_each(values: st.SearchStrategy[float]) -> st.SearchStrategy[Any]:
    return values | st.lists(values, min_size=1, max_size=3).map(tuple)


SAMPLING = st.builds(
    SamplingConfig,
    steps=st.integers(1, 1000),
    guidance_scale=st.floats(1, 1e6),
    control_scale=one_or_each(POSITIVE),
    control_start=one_or_each(st.floats(0, 0.4)),
    control_end=one_or_each(st.floats(0.5, 1)),
    guess_mode=st.booleans(),
    scheduler=st.sampled_from(list(config.SCHEDULERS)),
)
WINDOWS = st.builds(
    WindowConfig,
    stride=st.integers(1, 64),
    batch=st.integers(1, 64),
    loop=st.booleans(),
    weights=st.sampled_from(config.WEIGHTS),
) | st.builds(WindowConfig, projection=st.sampled_from(config.PROJECTIONS))
SYNC = st.builds(
    SyncConfig,
    weight=POSITIVE,
    steps=st.integers(0, 100),
    every=st.integers(1, 9),
    decay=st.floats(0, 1),
    gradient=st.sampled_from(config.GRADIENTS),
    step_size=st.sampled_from(config.STEP_SIZES),
    objective=st.sampled_from(config.OBJECTIVES),
    shrink=st.integers(1, 8),
    anchor=st.just(config.MIDDLE) | st.integers(0, 99),
)
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=9)
REGION = st.builds(
    Region,
    area=st.sampled_from(["0-35%", "12.5-40% x 50-100%", "90-10%", "0-512px x 7-64", "grey 128"]),
    prompt=WORDS,
    negative_prompt=st.just("") | WORDS,
    control_scale=st.floats(0, 1e6),
    soft=st.floats(0, 2),
)
HASH = st.sampled_from(["", "ab" * 32])
NAMES = st.lists(TEXT, max_size=2).map(tuple)


@st.composite
def pictures(draw: st.DrawFn) -> ImageSpec:
    def source(role: str) -> Source:
        return Source(role=role, path=draw(TEXT), sha256=draw(HASH))

    roles = [GUIDE] * draw(st.integers(0, 1)) + [CONTROL_MAP] * draw(st.integers(0, 3))
    sync = draw(SYNC)
    sources = tuple(source(role) for role in roles)
    if sync.anchor == config.MIDDLE and draw(st.booleans()):
        sources += (Source(role=ANCHOR, path=draw(TEXT.filter(lambda path: path != config.MIDDLE)), sha256=draw(HASH)),)
    return ImageSpec(
        prompt=draw(TEXT),
        negative_prompt=draw(TEXT),
        height=draw(SIDE),
        width=draw(SIDE),
        seed=draw(st.integers(0, config.LARGEST_SEED)),
        sampling=draw(SAMPLING),
        windows=draw(WINDOWS),
        sync=sync,
        regions=draw(st.lists(REGION, max_size=2).map(tuple)),
        sources=sources,
        model=draw(TEXT),
        controls=draw(NAMES),
        controlnets=draw(NAMES),
        detectors=draw(NAMES),
        fit=draw(st.sampled_from(config.FITS)),
    )


@settings(deadline=None, derandomize=True, max_examples=300)
@given(pictures())
def test_a_picture_comes_back_from_json_and_pickle(picture: ImageSpec) -> None:
    assert ImageSpec.from_settings(json.loads(json.dumps(picture.settings()))) == picture
    assert pickle.loads(pickle.dumps(picture)) == picture


def test_the_allow_list_is_what_settings_hold() -> None:
    assert set(VALLEY.settings()) == recorded_keys()
    names = {flag.replace("-", "_") for kind in (SamplingConfig, WindowConfig, SyncConfig) for flag in flags(kind)}
    assert names < recorded_keys()


def test_what_is_no_pictures_own_is_left_out() -> None:
    machine = {"output": "/etc/passwd", "overwrite": True, "device": "cuda", "offline": True, "save_control_map": True}
    assert ImageSpec.from_settings({**VALLEY.settings(), **machine}) == VALLEY
    assert check({"prompt": "x", "guide": None, **machine}) == {"prompt": "x"}


def test_what_json_cannot_carry_is_named_and_refused() -> None:
    def taste(images: torch.Tensor, anchor: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(1, 2, 3))

    own = ImageSpec(prompt="x", height=64, width=64, sync=SyncConfig(objective=taste).complete()).settings()
    assert own["objective"] == "taste"
    with pytest.raises(ConfigError, match="'taste' is unknown, or a function of the program"):
        ImageSpec.from_settings(json.loads(json.dumps(own)))
    seen = ImageSpec(
        prompt="x", height=64, width=64, sync=SyncConfig(anchor=Image.new("RGB", (8, 8))).complete()
    ).settings()
    with pytest.raises(ConfigError, match="the anchor was an image in another program's memory"):
        ImageSpec.from_settings(json.loads(json.dumps(seen)))


WRONG = {
    "prompt": 5,
    "seed": "7",
    "width": 512.0,
    "loop": "yes",
    "steps": True,
    "guidance_scale": "high",
    "control_scale": ["strong"],
    "control": "depth",
    "control_map": [1],
    "anchor": 1.5,
    "scheduler": "magic",
    "sync_decay": 7,
    "fit": "squash",
}


@pytest.mark.parametrize("key", WRONG)
def test_a_value_of_the_wrong_kind_is_one_line_that_names_it(key: str) -> None:
    with pytest.raises(ConfigError, match=key.replace("_", "[_ ]")) as error:
        ImageSpec.from_settings({**VALLEY.settings(), key: WRONG[key]})
    assert "\n" not in str(error.value)


def test_the_least_that_a_picture_needs() -> None:
    assert ImageSpec.from_settings({"prompt": "x", "width": 64, "height": 64}) == ImageSpec(
        prompt="x", height=64, width=64
    )
    with pytest.raises(ConfigError, match="no prompt, height"):
        ImageSpec.from_settings({"width": 64})


def test_what_a_picture_cannot_be() -> None:
    for seed in (-1, 2**64, True, 1.0):
        with pytest.raises(ConfigError, match="whole number between 0 and"):
            ImageSpec(prompt="x", height=64, width=64, seed=seed)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="not UTF-8"):
        ImageSpec(prompt="\udcff", height=64, width=64)
    with pytest.raises(ConfigError, match="unknown role"):
        Source(role="muse", path="a.png")
    guide = Source(role=GUIDE, path="a.png")
    with pytest.raises(ConfigError, match="one of each at most"):
        ImageSpec(prompt="x", height=64, width=64, sources=(guide, guide))


@pytest.mark.parametrize(
    "change", [{"control_start": 0.7, "control_end": 0.3}, {"control_start": (0.0, 0.6), "control_end": 0.5}]
)
def test_a_control_that_would_end_before_it_starts(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="the start must come before the end"):
        SamplingConfig(**change).complete()

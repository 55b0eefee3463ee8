"""Which pictures of a folder are scored, how they are cropped, and what is said about those that cannot be."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from synccontrol.errors import ConfigError, InputError
from synccontrol.evaluate.measurement import Settings
from synccontrol.evaluate.pictures import cut, grid, open_gallery


def save(path: Path, width: int = 64, height: int = 32, **own: Any) -> None:
    info = PngInfo()
    if own:
        info.add_itxt("synccontrol", json.dumps(own))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(path, pnginfo=info)


def test_crops_lie_as_in_the_published_program() -> None:
    # get_views_crop: (height - window) // stride + 1 rows, likewise columns, row by row
    assert grid(512, 3017, 512) == [(0, 512 * i) for i in range(5)]
    assert grid(70, 100, 32) == [(0, 0), (0, 32), (0, 64), (32, 0), (32, 32), (32, 64)]
    picture = torch.rand(1, 3, 70, 100)
    assert torch.equal(cut(picture, 32)[4], picture[0, :, 32:64, 32:64])


def test_control_maps_beside_a_montage_are_no_montages(tmp_path: Path) -> None:
    for name in ("a.png", "a.depth.png", "b.v2.png", "inner/c.png"):
        save(tmp_path / name)
    gallery = open_gallery(tmp_path, Settings(window=32))
    assert [montage.name for montage in gallery.montages] == ["a.png", "b.v2.png", "inner/c.png"]


def test_the_window_is_said_by_the_settings_the_pictures_or_nobody(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 512, 256, model="tiny")
    assert open_gallery(tmp_path, Settings()).window == 256
    assert open_gallery(tmp_path, Settings(window=128)).window == 128
    save(tmp_path / "a.png", 1024, 512, model="sd15")
    assert open_gallery(tmp_path, Settings()).window == 512
    save(tmp_path / "b.png", 1024, 512)
    with pytest.raises(InputError, match="different windows"):
        open_gallery(tmp_path, Settings())
    save(tmp_path / "b.png", 1024, 512, model="someone/unheard-of")
    with pytest.raises(InputError, match="--window"):
        open_gallery(tmp_path, Settings())


def test_bad_folders_get_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        open_gallery(tmp_path / "none", Settings())
    with pytest.raises(InputError, match="holds no pictures"):
        open_gallery(tmp_path, Settings())
    save(tmp_path / "a.png", 63, 32)
    with pytest.raises(InputError, match="holds 1 of the 2 windows of 32 px") as caught:
        open_gallery(tmp_path, Settings(window=32))
    assert "\n" not in str(caught.value)
    assert len(open_gallery(tmp_path, Settings(window=32, groups=("seams",))).montages) == 1
    save(tmp_path / "b.png", 96, 32)
    with pytest.raises(InputError, match=r"a\.png is 63x32 and b\.png 96x32"):
        open_gallery(tmp_path, Settings(window=32))


def test_objectives_that_sync_optimised_are_known(tmp_path: Path) -> None:
    save(tmp_path / "a.png", sync_weight=10.0, sync_steps=5, objective="stlpips", model="tiny")
    save(tmp_path / "b.png", sync_weight=0.0, sync_steps=5, objective="lpips", model="tiny")
    assert open_gallery(tmp_path, Settings(window=32)).optimised == {"stlpips"}


@pytest.mark.parametrize("bad", [{"window": 2}, {"groups": ("taste",)}, {"groups": ()}, {"draws": 0}, {"stride": 0}])
def test_settings_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Settings(**bad)
    with pytest.raises(ConfigError, match="one each"):
        Settings(controls=("depth", "canny"), detectors=("tiny",))

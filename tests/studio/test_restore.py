"""Settings of a picture that is handed over: the allow-list, and never a file, folder or model that they name."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from synccontrol.errors import InputError, SyncControlError
from synccontrol.io import metadata
from synccontrol.spec.image_spec import ImageSpec
from synccontrol.spec.settings import SamplingConfig
from synccontrol.studio.form_values import NAMES, restored

MODELS, DETECTORS = ("tiny",), {"tiny", "opencv"}
NAMING_FILES: dict[str, Any] = {
    "guide": "/etc/passwd",
    "control_map": ["/etc/shadow", ""],
    "ip_image": "/root/.ssh/id_rsa",
    "anchor": "/etc/hostname",
    "model": "/srv/other",
    "controlnet": ["../../x"],
    "detector": ["/srv/detector"],
    "lora": ["/srv/evil.safetensors"],
    "ip_adapter": "evil/adapter",
    "vae": "/srv/vae",
}


def write(folder: Path, settings: object) -> Path:
    path = folder / "settings.json"
    path.write_text(json.dumps(settings))
    return path


def test_a_picture_of_ours_gives_its_settings(tmp_path: Path) -> None:
    picture = ImageSpec(
        prompt="a hill",
        width=320,
        height=64,
        seed=5,
        model="tiny",
        controls=("depth",),
        sampling=SamplingConfig(steps=7).complete(),
    )
    metadata.save_png(Image.new("RGB", (320, 64)), tmp_path / "a.png", picture.settings())
    values, notes = restored(tmp_path / "a.png", MODELS, DETECTORS)
    assert not notes
    assert {**picture.settings(), **values} == picture.settings()
    assert (values["prompt"], values["seed"], values["steps"], values["control"]) == ("a hill", 5, 7, ["depth"])


def test_a_picture_from_before_there_was_a_scaffold_is_restored_without(tmp_path: Path) -> None:
    stored = {"prompt": "a hill", "sync_adain": 1.0}
    values, _ = restored(write(tmp_path, stored), MODELS, DETECTORS)
    assert (values["draft_strength"], values["draft_noise"]) == (0.0, 1.0)
    values, _ = restored(write(tmp_path, stored | {"draft_strength": 0.8}), MODELS, DETECTORS)
    assert (values["draft_strength"], values["draft_noise"]) == (0.8, 1.0)


@pytest.mark.parametrize("name", NAMING_FILES)
def test_no_file_that_is_named_comes_through(name: str, tmp_path: Path) -> None:
    settings = {"prompt": "x", name: NAMING_FILES[name]}
    values, notes = restored(write(tmp_path, settings), MODELS, DETECTORS)
    assert set(values) <= {"prompt", "anchor"} and values.get("anchor", "middle") == "middle"
    assert len(notes) == 1 and "\n" not in notes[0]


def test_what_is_no_setting_is_left_out_with_a_note(tmp_path: Path) -> None:
    settings = {"output": "/etc/x", "overwrite": True, "device": "cuda", "host": "0.0.0.0", "steps": 3}
    values, notes = restored(write(tmp_path, settings), MODELS, DETECTORS)
    assert values == {"steps": 3}
    assert notes == ["host, output, overwrite: no settings of an image, and left out"]
    assert set(values) <= set(NAMES)


@pytest.mark.parametrize("settings", [[], 3, {"steps": "many"}, {"prompt": 5}, {"objective": "mine"}])
def test_wrong_settings_give_their_line(settings: object, tmp_path: Path) -> None:
    with pytest.raises(SyncControlError):
        restored(write(tmp_path, settings), MODELS, DETECTORS)


def test_a_picture_of_others_gives_its_line(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="holds no settings"):
        restored(tmp_path / "a.png", MODELS, DETECTORS)

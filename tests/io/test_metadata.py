"""PNG metadata: other programs read it, and the settings reproduce the image."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from PIL import Image
from sd_parsers import ParserManager

from synccontrol.errors import InputError, OutputError
from synccontrol.io import metadata
from synccontrol.spec.settings import SamplingConfig, SyncConfig, WindowConfig, record

SETTINGS = {
    "prompt": "a valley, at sunset",
    "negative_prompt": "people",
    "width": 640,
    "height": 256,
    "seed": 7,
    "model": "tiny",
    **record(
        SamplingConfig(steps=12, guidance_scale=4.0, scheduler="dpmpp_2m").complete(),
        WindowConfig().complete(),
        SyncConfig().complete(),
    ),
}


@pytest.fixture
def png(tmp_path: Path) -> Path:
    path = tmp_path / "deep" / "image.png"
    metadata.save_png(Image.new("RGB", (640, 256)), path, SETTINGS)
    return path


def test_another_program_parses_the_parameters(png: Path) -> None:
    parsed = ParserManager().parse(png)
    assert parsed is not None
    assert [prompt.value for prompt in parsed.prompts] == ["a valley, at sunset"]
    assert [prompt.value for prompt in parsed.negative_prompts] == ["people"]
    (sampler,) = parsed.samplers
    assert sampler.name == "DPM++ 2M"
    assert sampler.parameters["steps"] == "12"
    assert sampler.parameters["seed"] == "7" or sampler.parameters["seed"] == 7
    assert "Clip skip: 2" in metadata.format_parameters({**SETTINGS, "clip_skip": 1})  # AUTOMATIC1111 counts from 1
    assert "Clip skip" not in metadata.format_parameters(SETTINGS)


def test_only_equirectangular_panoramas_have_gpano_metadata(png: Path, tmp_path: Path) -> None:
    with Image.open(png) as flat:
        assert metadata.XMP not in flat.info
    path = tmp_path / "sphere.png"
    metadata.save_png(Image.new("RGB", (640, 320)), path, {**SETTINGS, "projection": "equirectangular"})
    with Image.open(path) as image:
        packet = ElementTree.fromstring(image.info["XML:com.adobe.xmp"])
    (description,) = packet.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    gpano = {name.rpartition("}")[2]: value for name, value in description.items() if "google.com/photos" in name}
    assert gpano["ProjectionType"] == "equirectangular"
    assert gpano["FullPanoWidthPixels"] == gpano["CroppedAreaImageWidthPixels"] == "640"
    assert gpano["FullPanoHeightPixels"] == gpano["CroppedAreaImageHeightPixels"] == "320"
    assert gpano["CroppedAreaLeftPixels"] == gpano["CroppedAreaTopPixels"] == "0"


def test_settings_are_read_back(png: Path, tmp_path: Path) -> None:
    assert metadata.read_settings(png) == json.loads(json.dumps(SETTINGS))
    copy = tmp_path / "settings.json"
    copy.write_text(json.dumps(SETTINGS))
    assert metadata.read_settings(copy) == metadata.read_settings(png)


def test_saving_leaves_no_other_file(png: Path) -> None:
    assert [path.name for path in png.parent.iterdir()] == ["image.png"]


def test_files_without_settings_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    (tmp_path / "list.json").write_text("[1]")
    for name in ("plain.png", "list.json", "none.png"):
        with pytest.raises(InputError, match="no settings"):
            metadata.read_settings(tmp_path / name)


def test_an_invalid_folder_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        metadata.save_png(Image.new("RGB", (8, 8)), tmp_path / "file" / "image.png", SETTINGS)

"""A setting is declared once: one line in a config class is all that flags, help, documents, files and form need."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from synccontrol import Img2ImgConfig, SamplingConfig, SyncConfig, WindowConfig
from synccontrol.errors import ConfigError, UnknownArgumentError
from synccontrol.spec.image_settings import all_flags, renamed_flags
from synccontrol.spec.image_spec import ImageSpec

ROOT = Path(__file__).parents[2]
ADDED = '    sparkle: float = setting(0.25, "how much the image sparkles, 0..1", minimum=0.0, maximum=1.0)\n'
PROGRAM = """
import contextlib, io, json
from pathlib import Path
import gradio as gr
from docs import flags as documents
from synccontrol import ImageSpec, SyncConfig
from synccontrol.cli import parser
from synccontrol.errors import ConfigError, InputError
from synccontrol.io import manifest, metadata
from synccontrol.spec.schema import record
from synccontrol.studio import form, form_values

def refusal(call):
    try:
        call()
    except (ConfigError, InputError) as error:
        return str(error)

places = {}
parsed = parser.build_parser().parse_args(["--sync-sparkle", "0.5"])
places["flag"] = parsed.sync_sparkle == 0.5
places["help"] = "how much the image sparkles" in " ".join(parser.build_parser().format_help().split())
places["docs"] = "--sync-sparkle" in documents.tables()
spec = ImageSpec.from_settings({"prompt": "x", "width": 64, "height": 64, "sync_sparkle": 0.75})
wrong = {"prompt": "x", "width": 64, "height": 64, "sync_sparkle": "much"}
places["json"] = spec.sync.sparkle == 0.75 and "sync_sparkle" in refusal(lambda: ImageSpec.from_settings(wrong))
rows = Path("rows.csv")
rows.write_text("image,sync_sparkle\\na.png,0.5\\n")
bad = Path("bad.jsonl")
bad.write_text('{"image": "a.png", "sync_sparkle": "much"}')
(row,) = manifest.rows(rows)
places["manifest"] = row.values["sync_sparkle"] == 0.5 and "a number" in refusal(lambda: list(manifest.rows(bad)))
places["metadata"] = spec.settings()["sync_sparkle"] == 0.75
with gr.Blocks():
    fields = form.settings(form_values.SETTINGS and {**record(*(cls() for cls in parser.CONFIGS.values()))})
places["form"] = isinstance(fields["sync_sparkle"], gr.Number)
places["range"] = "between 0 and 1" in refusal(lambda: SyncConfig(sparkle=2.0))
print(json.dumps(places))
"""


def test_one_line_adds_a_setting_everywhere(tmp_path: Path) -> None:
    for folder in ("synccontrol", "preprocess", "docs"):
        ignored = shutil.ignore_patterns("tiny", "__pycache__", "*.safetensors", "pictures", "*.png", "*.webp", "*.jpg")
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=ignored)
    (tmp_path / "synccontrol/models/tiny").symlink_to(ROOT / "synccontrol/models/tiny")
    settings = tmp_path / "synccontrol/spec/settings.py"
    before = settings.read_text(encoding="utf-8")
    place = before.index("    weight: float = setting(20.0")
    settings.write_text(before[:place] + ADDED + before[place:], encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "GRADIO_ANALYTICS_ENABLED": "False"}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    places = json.loads(done.stdout.splitlines()[-1])
    assert places == dict.fromkeys(("flag", "help", "docs", "json", "manifest", "metadata", "form", "range"), True)


def test_a_partial_config_changes_what_it_sets_and_nothing_else() -> None:
    preset = SamplingConfig(steps=18, guidance_scale=4.0, scheduler="ddim").complete()
    assert preset.overridden_by(SamplingConfig(steps=3)) == preset.replace(steps=3)
    assert preset.overridden_by(SamplingConfig(guidance_scale=7.5)).guidance_scale == 7.5  # though it is the default
    assert preset.overridden_by(SamplingConfig().complete()) == SamplingConfig()


@pytest.mark.parametrize(
    ("build", "line"),
    [
        (lambda: SamplingConfig(steps="3"), "steps is '3'; it must be a whole number"),
        (lambda: SamplingConfig(steps=True), "steps is True; it must be a whole number"),
        (lambda: SamplingConfig(steps=0), "steps is 0; it must be at least 1"),
        (lambda: SyncConfig(weight=float("nan")), "sync weight is nan; it must be at least 0"),
        (lambda: SyncConfig(draft_noise=3.0), "draft noise is 3.0; it must be between 0 and 2"),
        (lambda: WindowConfig(projection="equirect"), "unknown projection 'equirect'; did you mean equirectangular?"),
        (lambda: Img2ImgConfig(strength=0.0), "strength is 0; it must be above 0, up to 1"),
    ],
)
def test_a_wrong_value_is_one_line(build: object, line: str) -> None:
    with pytest.raises(ConfigError) as raised:
        build()  # type: ignore[operator]
    assert str(raised.value).startswith(line)


def test_unknown_and_renamed_arguments_are_type_errors_that_name_the_right_one() -> None:
    with pytest.raises(UnknownArgumentError, match="use steps") as raised:
        SamplingConfig(stepz=3)  # type: ignore[call-arg]
    assert isinstance(raised.value, TypeError) and raised.value.field == "stepz"
    with pytest.raises(TypeError, match="use draft_strength"):
        SyncConfig(scaffold=0.8)  # type: ignore[call-arg]


def test_earlier_flags_are_still_known() -> None:
    assert renamed_flags() == {
        "sync-scaffold": "draft-strength",
        "sync-scaffold-noise": "draft-noise",
        "sync-across": "sync-shared-style",
        "colours": "color-match",
        "upscale-colours": "upscale-color-match",
        "extend": "outpaint",
        "mask-soft": "mask-feather",
        "tall": "tall-canvas",
    }
    assert {new.replace("-", "_") for new in renamed_flags().values()} < set(all_flags())


def test_images_that_were_recorded_under_earlier_names_are_read() -> None:
    recorded = {
        "prompt": "x",
        "width": 512,
        "height": 256,
        "init_image": "a.png",
        "sync_scaffold": 0.8,
        "sync_scaffold_noise": 1.05,
        "sync_across": 0.3,
        "colours": "kept",
        "upscale_colours": "drawn",
        "extend": "right 64",
        "mask_soft": 0.25,
        "tall": "rows",
    }
    spec = ImageSpec.from_settings(recorded)
    assert (spec.sync.draft_strength, spec.sync.draft_noise, spec.sync.shared_style) == (0.8, 1.05, 0.3)
    assert (spec.img2img.color_match, spec.img2img.outpaint, spec.img2img.mask_feather) == ("source", "right 64", 0.25)
    assert (spec.upscale.upscale_color_match, spec.upscale.tall_canvas) == ("none", "rows")

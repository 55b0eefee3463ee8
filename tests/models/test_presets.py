"""Presets: the bundled model is what its preset says."""

from synccontrol import Montage
from synccontrol.models import presets


def test_the_bundled_model_is_what_its_preset_says() -> None:
    preset = presets.PRESETS["tiny"]
    montage = Montage.from_pretrained("tiny", controls=["depth", "canny", "pose"], offline=True)
    assert montage.denoiser.geometry == preset.geometry
    assert montage.denoiser.controls == 3
    assert montage.defaults == preset.defaults
    files = [path for path in presets.BUNDLED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 50e6
    assert max(path.stat().st_size for path in files) <= 20e6
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pth", ".ckpt")]

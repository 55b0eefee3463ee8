"""What the page loads beside its model: visitors say how strong it is, and never what it is or where it lies."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from synccontrol.batch.job import Job
from synccontrol.errors import ConfigError
from synccontrol.io import metadata
from synccontrol.models import loader
from synccontrol.spec.settings import Adapters
from synccontrol.studio import form_values
from synccontrol.studio.backends import local, without_paths
from synccontrol.studio.form_values import command, restored
from synccontrol.studio.options import parsed
from synccontrol.studio.request import read_request
from synccontrol.studio.session import Session
from tests.families import tiny_additions
from tests.studio.conftest import MACHINE

Values = Callable[..., dict[str, Any]]
LOADED = Adapters(lora=("/srv/style.safetensors:0.5", "owner/light"), ip_adapter="/srv/faces/adapter.safetensors")


def test_visitors_see_names_and_weights() -> None:
    assert form_values.weights(LOADED) == {"lora0": ("style.safetensors", 0.5), "lora1": ("owner/light", 1.0)}
    flags = {"lora": list(LOADED.lora), "ip_adapter": LOADED.ip_adapter, "vae": "owner/vae", "prompt": "/srv/x"}
    names = ["style.safetensors:0.5", "owner/light"]
    assert form_values.with_short_names(flags) == {**flags, "lora": names, "ip_adapter": "adapter.safetensors"}
    recorded = {"lora": ["/srv/style.safetensors:0.5"], "vae": "", "ip_adapter": "", "control_map": []}
    assert without_paths(recorded) == {**recorded, "lora": ["style.safetensors:0.5"]}
    assert command({"prompt": "x", "lora": list(LOADED.lora)}).endswith(
        "--lora style.safetensors:0.5 --lora owner/light"
    )


def test_they_change_weights_and_nothing_else(tmp_path: Path) -> None:
    assert form_values.adapter_flags({}, None, Adapters()) == {}
    assert form_values.adapter_flags({}, None, LOADED) == {"lora": ["/srv/style.safetensors:0.5", "owner/light:1"]}
    asked_for = {"lora0": 0, "lora1": None, "lora2": 1, "lora": ["/etc/passwd"], "ip_adapter": "/etc", "ip_scale": 0.7}
    found = form_values.adapter_flags(asked_for, tmp_path, LOADED)
    assert found.pop("lora") == ["/srv/style.safetensors:0", "owner/light:1"]
    assert found == {"ip_adapter": LOADED.ip_adapter, "ip_image": tmp_path, "ip_scale": 0.7}
    for wrong in ("/etc/passwd", 1000, float("nan"), True):
        with pytest.raises(ConfigError, match="the weight of style"):
            form_values.adapter_flags({"lora0": wrong}, None, LOADED)


def test_a_picture_gives_its_weights_back(tmp_path: Path) -> None:
    def found(**settings: Any) -> tuple[dict[str, Any], list[str]]:
        path = tmp_path / "settings.json"
        path.write_text(json.dumps(settings))
        return restored(path, (), (), LOADED)

    assert found(lora=["style.safetensors:0.3", "owner/light:2"]) == ({"lora0": 0.3, "lora1": 2.0}, [])
    assert found(steps=3) == ({"steps": 3, "lora0": 0.0, "lora1": 0.0}, [])  # drawn without any
    values, notes = found(lora=["/etc/style.safetensors"], ip_adapter="other", ip_scale=0.5, vae="x")
    assert values == {}
    assert notes == ["lora, ip_adapter, ip_scale, vae: this page loads none of them, so the image will differ"]
    weights = {"lora0": 0.0, "lora1": 0.0}
    assert found(ip_adapter="adapter.safetensors", ip_scale=0.5) == ({**weights, "ip_scale": 0.5}, [])


def test_they_are_one_models() -> None:
    options = parsed(["--lora", "a.safetensors:0.5", "--lora", "b", "--ip-adapter", "c", "--vae", "d"], "app")
    assert options.adapters == Adapters(lora=("a.safetensors:0.5", "b"), ip_adapter="c", vae="d")
    with pytest.raises(ConfigError, match=r"one model.s; name it with one model alone"):
        parsed(["--lora", "a", "--model", "tiny", "--model", "sd15"], "app")


def test_other_weights_load_nothing_anew(
    checkpoint: Path, values: Values, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = loader.load(str(checkpoint), [], offline=True)
    adapter = tiny_additions.save_ip_adapter(pipe.unet, tmp_path, "adapter.safetensors")
    adapters = Adapters(lora=(str(tiny_additions.save_lora(pipe, tmp_path)),), ip_adapter=str(adapter))
    session.reference = session.place() / "face.png"
    Image.new("RGB", (32, 32), "red").save(session.reference)

    def job(**own: Any) -> Job:
        found = read_request(values(prompt="a hill", **own), session, (str(checkpoint),), True, adapters)
        return found.job(MACHINE, session.place() / "out.png")

    executor, strong, weak = local(), job(), job(lora0=0.25, ip_scale=0.5)
    outcomes = [*executor.work(iter([strong])), *executor.work(iter([weak]))]
    monkeypatch.setattr("synccontrol.batch.executor.Worker", None)  # nothing more can be loaded
    outcomes += executor.work(iter([dataclasses.replace(strong, output=session.place() / "again.png")]))
    monkeypatch.undo()
    outcomes += local().work(iter([dataclasses.replace(weak, output=session.place() / "fresh.png")]))
    pictures = [outcome.output for outcome in outcomes]
    first, second, again, fresh = (np.asarray(Image.open(path)) for path in pictures)
    assert (first != second).any()
    assert np.array_equal(first, again) and np.array_equal(second, fresh)
    recorded = metadata.read_settings(Path(pictures[1]))
    assert recorded["lora"] == ["pytorch_lora_weights.safetensors:0.25"] and recorded["ip_image"] == "face.png"
    assert str(tmp_path) not in json.dumps({**recorded, "model": ""})

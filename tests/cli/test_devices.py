"""Several devices on the command line: what is said, recorded and kept."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from synccontrol.batch import executor
from synccontrol.cli import doctor, main
from synccontrol.io.metadata import read_settings
from tests.cli.pictures import Run, draw, pixels

FLAGS = ["--prompt", "hills", "--width", "160", "--dtype", "float64"]


def test_a_picture_is_the_same_and_finished_whatever_the_number_of_devices(run: Run) -> None:
    assert run(*FLAGS, "--device", "cpu,cpu", "--output", "a.png") == (0, "a.png\n", "")
    assert run(*FLAGS, "--output", "b.png")[0] == 0
    assert np.array_equal(pixels("a.png"), pixels("b.png"))
    two, one = read_settings(Path("a.png")), read_settings(Path("b.png"))
    assert (two.pop("device"), one.pop("device")) == ("cpu,cpu", "cpu")
    assert two == one
    for device in ("cpu,cpu", "cpu", "cpu,cpu"):  # what is there is the picture, not another one beside it
        assert run(*FLAGS, "--device", device, "--output", "out")[0] == 0
    (drawn,) = Path("out").glob("*.png")
    assert read_settings(drawn)["device"] == "cpu,cpu"
    status, _, err = run("--settings", "a.png", "--dtype", "float64", "--output", "c.png", model=[])
    assert (status, err) == (0, "")


def test_the_forecast_counts_what_each_device_holds(run: Run) -> None:
    plain = run(*FLAGS, "--dry-run")[1]
    shared = run(*FLAGS, "--device", "cpu,cpu", "--dry-run")[1]
    assert "on cpu, cpu, torch.float64" in shared
    assert "4 in a call of each of 2 devices" in shared
    assert "; each further device " in shared and "further" not in plain


def test_what_works_on_one_device_only_says_so(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(*FLAGS, "--device", "cpu,cpu", "--offload", "model")
    assert (status, err.count("\n")) == (2, 1)
    assert "offload model frees one card, and the devices are cpu,cpu" in err
    guide = draw(Path("wide.png"))
    assert main.main(["map", "--guide", str(guide), "--control", "canny", "--device", "cpu,cpu"]) == 2
    assert "a detector runs on one device, and --device names cpu,cpu" in capsys.readouterr().err


def test_the_doctor_says_how_several_cards_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (8 * 10**9, 16 * 10**9))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(name="card"))
    assert any("--device cuda:0,cuda:1 generates one wide image on all" in line for line in doctor._machine())


@pytest.mark.parametrize(("device", "cards"), [("cpu,cpu", 0), ("cuda", 1), ("cuda:0, cuda:1", 2), ("auto", 1)])
def test_a_worker_of_ray_has_as_many_cards_as_are_named(device: str, cards: int) -> None:
    class Cluster:
        def cluster_resources(self) -> dict[str, float]:
            return {"GPU": 8.0}

    assert executor.gpus_per_worker(Cluster(), device) == cards

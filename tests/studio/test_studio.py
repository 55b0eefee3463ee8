"""The studio: maps before anything is drawn, pictures as the command line draws them, and an end within a step."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from synccontrol.batch.job import Job, Outcome
from synccontrol.cli import main
from synccontrol.errors import ConfigError
from synccontrol.io import metadata
from synccontrol.studio.backends import without_paths
from synccontrol.studio.form_values import command
from synccontrol.studio.queue import ENDED, Stopped, Ticket
from synccontrol.studio.request import read_request
from synccontrol.studio.session import Session
from synccontrol.studio.studio import Studio, without_folders
from tests.studio.conftest import MACHINE

Values = Callable[..., dict[str, Any]]


@pytest.fixture
def guided(session: Session) -> Session:
    session.guide = session.folder / "hill.png"
    x, y = np.meshgrid(np.arange(128), np.arange(64))
    Image.fromarray(np.where((x // 16 + y // 16) % 2, 255, 0).astype(np.uint8)).convert("RGB").save(session.guide)
    return session


def job(values: dict[str, Any], session: Session) -> tuple[Job, dict[str, Any], dict[str, Any]]:
    found = read_request(values, session, (str(values["model"]),), offline=True)
    return found.job(MACHINE, session.folder / "out.png"), found.options, found.given


def finish(ticket: Ticket) -> Ticket:
    end = time.monotonic() + 60
    while ticket.state != ENDED:
        assert time.monotonic() < end
        time.sleep(0.01)
    return ticket


def test_a_look_shows_map_windows_and_anchor(studio: Studio, values: Values, guided: Session) -> None:
    one, options, _ = job(values(control0="canny"), guided)
    preview = studio.preview(one, options)
    assert (preview.width, preview.height, preview.windows, preview.kind) == (128, 64, len(preview.boxes), "")
    assert [image.size for image in preview.maps] == [(128, 64)]
    assert preview.boxes[0] == (0, 0, 64, 64) and preview.boxes[-1] == (64, 0, 64, 64)
    assert preview.anchors == [preview.windows // 2]
    strict, options, _ = job(values(control0="canny", **{"canny:low": 2000, "canny:high": 2040}), guided)
    assert np.asarray(studio.preview(strict, options).maps[0]).sum() < np.asarray(preview.maps[0]).sum()


def test_too_much_is_refused_before_anything_is_loaded(studio: Studio, values: Values, guided: Session) -> None:
    for changes, what in (
        ({"width": 40_000}, "megapixels"),
        ({"steps": 31}, "31 steps"),
        ({"width": 8_000, "upscale": 2}, "16000x128 is more than"),
    ):
        one, options, _ = job(values(**changes), guided)
        with pytest.raises(ConfigError, match=what):
            studio.preview(one, options)


def test_the_command_draws_the_same_picture(
    studio: Studio, values: Values, guided: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shlex

    one, _, given = job(values(control0="canny", seed=3, prompt="a 'red' hill"), guided)
    outcome = finish(studio.submit(one, "a", lambda job, outcome: outcome)).result
    assert not outcome.error
    monkeypatch.chdir(guided.folder)
    argv = shlex.split(command(given))[1:]
    assert main.main([*argv, "--device", "cpu", "--output", "again.png", "--quiet"]) == 0
    with Image.open("out.png") as ours, Image.open("again.png") as theirs:
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))
    recorded = metadata.read_settings(Path("out.png"))
    assert recorded == metadata.read_settings(Path("again.png"))
    assert str(guided.folder) not in json.dumps({**recorded, "model": ""})


def test_previews_come_and_stopping_ends_within_a_step(studio: Studio, values: Values, guided: Session) -> None:
    one, _, _ = job(values(control0="canny", steps=30), guided)
    results: list[Outcome] = []
    ticket = studio.submit(one, "a", lambda job, outcome: results.append(outcome))
    while not ticket.preview:
        time.sleep(0.001)
    at = ticket.step
    studio.queue.stop("a")
    finish(ticket)
    assert ticket.step <= at + 1 and isinstance(ticket.error, Stopped)
    assert ticket.preview.startswith("data:image/jpeg;base64,")
    assert not results and not (guided.folder / "out.png").exists()
    following = finish(studio.submit(job(values(), guided)[0], "a", lambda job, outcome: outcome))
    assert following.result.error == ""  # the model is as it was


def test_an_enlarged_picture_counts_the_steps_of_all_passes(studio: Studio, values: Values, guided: Session) -> None:
    one, _, given = job(values(control0="canny", upscale=2, steps=4), guided)
    assert given["upscale"] == 2
    ticket = finish(studio.submit(one, "a", lambda job, outcome: outcome))
    assert not ticket.result.error and ticket.step == ticket.steps == 4 + 3 + 1
    with Image.open(ticket.result.output) as image:
        assert image.size == (256, 128)


def test_settings_and_lines_name_no_folder(tmp_path: Path) -> None:
    settings = {"guide": "/a/b/c.png", "ip_image": None, "anchor": 3, "control_map": ["/a/d.png", ""], "prompt": "/a/b"}
    assert without_paths(settings) == {**settings, "guide": "c.png", "control_map": ["d.png", ""]}
    assert without_folders(f"{tmp_path}/12/x.png is no picture; {tmp_path}/y", tmp_path) == "x.png is no picture; y"
    assert without_folders("LoRA /home/ann/my.safetensors: see https://hub.co/a/b or ../c/d", tmp_path) == (
        "LoRA my.safetensors: see https://hub.co/a/b or ../c/d"
    )
    assert without_folders("cannot read '/srv/models/xl/unet/config.json'", tmp_path) == "cannot read 'config.json'"

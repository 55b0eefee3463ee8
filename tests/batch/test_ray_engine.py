"""Ray: the same bytes from other processes, and what is not to be had is one line."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from synccontrol.batch.executor import RemoteWorker
from synccontrol.batch.model_request import ModelRequest
from synccontrol.cli import main
from tests.cli.pictures import draw, pixels

ROOT = Path(main.__file__).parents[2]
LONGEST = 300  # s


def ray(folder: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    cheap = ["--steps", "1", "--sync-weight", "0", "--offline", "--device", "cpu", "--quiet", "--prompt", "x"]
    return subprocess.run(
        [sys.executable, "-m", "synccontrol", *cheap, "--engine", "ray", *flags],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )


def test_a_worker_elsewhere_says_what_is_not_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    request = ModelRequest(
        model="nobody/nothing", controls=(), controlnets=(), detectors=(), device="cpu", offline=True
    )
    assert "nobody/nothing" in RemoteWorker(1, str(tmp_path)).load(request)


def test_without_ray_one_line_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main.main(["--width", "256", "--engine", "ray", "--quiet"]) == 2
    err = capsys.readouterr().err
    assert "pip install 'synccontrol[ray]'" in err and err.count("\n") == 1
    for flags, message in (
        (["--workers", "2"], "--workers needs --engine ray"),
        (["--address", "auto"], "--address needs --engine ray"),
        (["--engine", "ray", "--workers", "0"], "--workers is 0"),
    ):
        assert main.main(["--width", "256", "--quiet", *flags]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_two_workers_draw_the_same_bytes(tmp_path: Path) -> None:
    for number in range(3):
        draw(tmp_path / "in" / f"{number}.png", 256, 256, seed=number)
    (tmp_path / "in" / "broken.png").write_text("no picture")
    guides = ["--guide", "in", "--control", "canny"]
    done = ray(tmp_path, *guides, "--workers", "2")
    assert done.returncode == 1, done.stderr
    assert sorted(done.stdout.split()) == [f"out/{number}.png" for number in range(3)]
    first, last = done.stderr.splitlines()
    assert first.startswith("error: in/broken.png ") and last == "error: 1 of 4 images failed; the others are done"
    local = ["--steps", "1", "--sync-weight", "0", "--offline", "--device", "cpu", "--quiet", "--prompt", "x"]
    command = [sys.executable, "-m", "synccontrol", *local, *guides, "--output", "local"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=tmp_path, env=environment, check=False, capture_output=True)
    for number in range(3):
        assert np.array_equal(pixels(tmp_path / f"out/{number}.png"), pixels(tmp_path / f"local/{number}.png"))
        names = [tmp_path / folder / f"{number}.png" for folder in ("out", "local")]
        assert names[0].read_bytes() == names[1].read_bytes()


@pytest.mark.slow
def test_what_every_picture_needs_is_missed_once_and_no_cluster_is_one_line(tmp_path: Path) -> None:
    for flags, message in (
        (["--width", "256", "--address", "127.0.0.1:1"], "there is no Ray cluster at '127.0.0.1:1'"),
        (["--width", "256", "--count", "2", "--model", "nobody/nothing"], "nobody/nothing"),
    ):
        done = ray(tmp_path, *flags)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert message in done.stderr

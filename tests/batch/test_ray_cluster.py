"""Ray as a cluster: machines that are lost, one that was there before, and an end after the step."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from synccontrol.batch.executor import LocalExecutor, RayExecutor
from synccontrol.batch.job import Job, Recipe
from synccontrol.batch.model_request import ModelRequest
from synccontrol.cli import main
from synccontrol.spec.settings import SamplingConfig, SyncConfig, WindowConfig
from tests.batch.test_ray_engine import LONGEST, ray

pytestmark = pytest.mark.slow

ROOT = Path(main.__file__).parents[2]
PORT = 6399
SIZE = ["--width", "256", "--height", "256"]
RECIPE = Recipe(
    request=ModelRequest(model="tiny", controls=(), controlnets=(), detectors=(), device="cpu", offline=True),
    sampling=SamplingConfig(steps=4).complete(),
    windows=WindowConfig().complete(),
    sync=SyncConfig(weight=0.0).complete(),
)


def jobs(folder: Path, count: int) -> list[Job]:
    job = Job(guide=None, prompt="hills", negative_prompt="", seed=0, width=256, output=folder, recipe=RECIPE)
    return [replace(job, seed=seed, output=folder / f"{seed}.png") for seed in range(count)]


def started(folder: Path, *flags: str) -> "subprocess.Popen[str]":
    """Starts a run on Ray in a group of its own, as a terminal would."""
    cheap = ["--sync-weight", "0", "--offline", "--device", "cpu", "--quiet", "--prompt", "x", *SIZE]
    return subprocess.Popen(
        [sys.executable, "-m", "synccontrol", *cheap, "--engine", "ray", *flags],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_ctrl_c_ends_it_after_the_step(tmp_path: Path) -> None:
    hours = ["--steps", "1000", "--scheduler", "ddim", "--count", "3", "--workers", "2"]
    (tmp_path / "guide.png").write_bytes((ROOT / "examples/guides/valley.png").read_bytes())
    guided = ["--guide", "guide.png", "--fit", "crop", "--control", "canny", "--save-control-map"]
    run = started(tmp_path, *hours, *guided)
    while len(list(tmp_path.glob("out/*.canny.png"))) < 2 and run.poll() is None:  # then both workers draw
        time.sleep(0.2)
    os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=LONGEST)
    assert (run.returncode, out) == (130, ""), err
    assert err.startswith("error: interrupted; 0 generated") and "to resume: " in err, err
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert all(re.fullmatch(r"guide-seed\d\.canny\.png|results\.jsonl", name) for name in names), names


def test_a_machine_that_is_lost_costs_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    local = LocalExecutor()
    assert not any(outcome.error for outcome in local.work(iter(jobs(tmp_path / "local", 8))))
    local.close()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        second = cluster.add_node(num_cpus=1)
        engine = RayExecutor(2, cluster.address)
        outcomes = engine.work(iter(jobs(tmp_path / "ray", 8)))
        first = next(outcomes)
        cluster.remove_node(second, allow_graceful=False)
        others = list(outcomes)
        engine.close()
    finally:
        cluster.shutdown()
    assert [outcome.error for outcome in (first, *others)] == [""] * 8
    for job in jobs(tmp_path / "local", 8):
        assert job.output.read_bytes() == (tmp_path / "ray" / job.output.name).read_bytes()
    # What the lost machine was writing keeps its hidden name, until the end of a run sweeps it (`jobs/batch.py`).
    assert len([path for path in (tmp_path / "ray").iterdir() if not path.name.startswith(".")]) == 8


@pytest.fixture(params=["token", "disabled"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Returns the address of a cluster that somebody else has started, which asks for a token or does not."""
    (tmp_path / "token").write_text("0123456789abcdef" * 4)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("RAY_AUTH_MODE", request.param)
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    words = ["start", "--head", "--port", str(PORT), "--num-cpus", "2", "--include-dashboard", "false", "--block"]
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("ray")), *words],
        env={**os.environ, **own},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        said = ""
        while "Ray runtime started" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        yield f"127.0.0.1:{PORT}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate()


def test_a_cluster_that_is_there_is_joined_and_left(cluster: str, tmp_path: Path) -> None:
    for count, address in (("2", ["--address", cluster]), ("3", ["--address", cluster]), ("4", [])):
        done = ray(tmp_path, *SIZE, "--count", count, "--workers", "2", *address)  # the last one has its own
        assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("out/montage-seed*.png"))) == 4

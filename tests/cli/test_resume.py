"""Runs that are killed, interrupted, or share a folder: the next one does the rest, and the bytes are the same."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from synccontrol.batch.worker import Worker
from synccontrol.cli import main
from synccontrol.io import claims
from synccontrol.io import claims as locks
from tests.cli.pictures import ALWAYS, Run, draw

# Processes of other runs: forked where no thread has been, since a fork has none of the threads that hold its locks.
OTHERS = multiprocessing.get_context("forkserver")
OTHERS.set_forkserver_preload([__name__, "synccontrol.batch.worker"])


def files(folder: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def pictures(folder: str) -> dict[str, bytes]:
    return {name: content for name, content in files(folder).items() if name.endswith(".png")}


def records(folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "results.jsonl").read_text().splitlines()]


@pytest.fixture
def flags(run: Run, canny: list[str]) -> list[str]:
    """Returns the flags of a run of three guides, one in a folder of its own, maps saved."""
    for number, name in enumerate(("a.png", "b.png", "deep/c.png")):
        draw(Path("in", name), seed=number)
    return ["--guide", "in", "--prompt", "x", *canny, "--save-control-map"]


def before(stage: str, number: int, act: Callable[[], object], patch: pytest.MonkeyPatch) -> None:
    """Has a stage of the worker do something before its n-th picture."""
    real, seen = getattr(Worker, stage), []

    def wrapped(self: Worker, *arguments: Any) -> Any:
        seen.append(arguments)
        if len(seen) == number:
            act()
        return real(self, *arguments)

    patch.setattr(Worker, stage, wrapped)


def end(number: int) -> None:
    os.kill(os.getpid(), number)


def linger() -> None:
    Path("started").touch()
    time.sleep(1)


def other_run(stage: str, number: int, act: Callable[[], object], flags: list[str]) -> None:
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        before(stage, number, act, patch)
        raise SystemExit(main.main(flags))


@pytest.fixture
def start(run: Run, model: list[str]) -> Callable[..., BaseProcess]:
    """Returns a function that starts a run in a process of its own, with a stage that does something."""

    def begin(stage: str, number: int, act: Callable[[], object], flags: list[str]) -> BaseProcess:
        process = OTHERS.Process(target=other_run, args=(stage, number, act, [*model, *ALWAYS, *flags]))
        process.start()
        return process

    return begin


@pytest.mark.parametrize("stage", ["prepare", "generate", "save"])
def test_killed_in_any_stage_and_run_again_gives_the_same_bytes(
    stage: str, run: Run, flags: list[str], start: Callable[..., BaseProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(*flags, "--output", "whole")[0] == 0
    killed = start(stage, 2, partial(end, signal.SIGKILL), flags)  # without any chance to clean up
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert any(name.endswith(claims.CLAIM) for name in files("out"))
    monkeypatch.setattr(locks, "YOUNG_SECONDS", 0.0)
    status, _, err = run(*flags)
    assert (status, err) == (0, "")
    assert pictures("out") == pictures("whole")
    assert files("out").keys() == files("whole").keys()
    assert {record["output"] for record in records("out")} == {"a.png", "b.png", "deep/c.png"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_ends_after_the_step_and_says_how_to_go_on(
    number: int, run: Run, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before("generate", 2, partial(end, number), monkeypatch)
    status, out, err = run(*flags, "--seed", "random")
    assert (status, out) == (130, "out/a.png\n")
    assert err.startswith("error: interrupted; 1 generated in ") and err.count("\n") == 1
    seed = records("out")[0]["seed"]
    assert f"--seed {seed}" in err.partition("; to resume: ")[2]
    assert not [name for name in files("out") if name.startswith(".") or "/." in name]
    status, out, err = run(*flags, "--seed", str(seed))
    assert (status, out, err) == (0, "out/b.png\nout/deep/c.png\n", "")


def test_what_another_run_makes_is_waited_for(run: Run, flags: list[str], start: Callable[..., BaseProcess]) -> None:
    assert run(*flags, "--output", "whole")[0] == 0
    other = start("generate", 1, linger, flags)
    while not Path("started").exists():
        time.sleep(0.01)
    status, out, err = run(*flags)
    assert (status, err) == (0, "")
    other.join()
    assert other.exitcode == 0
    assert pictures("out") == pictures("whole")
    made = [record["output"] for record in records("out") if record["status"] == "made"]
    assert sorted(made) == ["a.png", "b.png", "deep/c.png"]
    assert len(out.split()) < 3


def test_a_record_of_each_picture(run: Run, flags: list[str]) -> None:
    Path("in/broken.png").write_text("no picture")
    assert run(*flags)[0] == 1
    found = {record["output"]: record for record in records("out")}
    assert found.keys() == {"a.png", "b.png", "broken.png", "deep/c.png"}
    good, bad = found["deep/c.png"], found["broken.png"]
    assert (good["status"], good["error"], good["size"], good["seed"]) == ("made", "", [160, 64], 0)
    assert good["saved_maps"] == ["deep/c.canny.png"]
    assert list(good["seconds"]) == ["maps", "drawing", "saving"] and good["memory"] > 10**7
    assert set(good["versions"]) == {"synccontrol", "torch", "diffusers"}
    assert good["settings"]["steps"] == 2 and good["device"] == "cpu" and good["model_revision"]
    assert bad["status"] == "failed" and "is not an image" in bad["error"]
    with Path("out/results.jsonl").open("ab") as file:
        file.write(b'{"output": "a.p')  # a run was killed within its line
    draw(Path("in/broken.png"), seed=5)
    assert run(*flags)[0] == 0
    *_, cut, last = Path("out/results.jsonl").read_text().splitlines()
    assert cut == '{"output": "a.p'
    assert json.loads(last)["output"] == "broken.png" and json.loads(last)["status"] == "made"


def test_what_is_kept_is_said_with_its_reason(
    run: Run, flags: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, checkpoint: Path
) -> None:
    assert run(*flags)[0] == 0
    model = ["--model", str(checkpoint), "--objective", "stlpips", "--sync-steps", "1"]
    assert main.main([*model, "--device", "cpu", "--steps", "2", *flags]) == 0
    assert "3 outputs exist with these settings and are skipped" in capsys.readouterr().err
    monkeypatch.setattr("synccontrol.io.provenance.LIBRARIES", ("torch",))
    monkeypatch.setattr("synccontrol.__version__", "9.9")
    from synccontrol.batch import existing

    existing._machine.cache_clear()
    assert main.main([*model, "--device", "cpu", "--steps", "3", "--quiet", *flags]) == 0
    err = capsys.readouterr().err
    assert "3 of the existing outputs were generated with another steps, synccontrol 0.1.0, here 9.9 (out/a.png)" in err
    existing._machine.cache_clear()

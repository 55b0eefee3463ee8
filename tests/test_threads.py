"""Threads that wait give their core away, in every program, unless the user says otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SAY = "import os; print(os.environ.get('OMP_WAIT_POLICY'))"


def policy(code: str, **environment: str) -> str:
    """Returns the wait policy after some code has run in an interpreter of its own."""
    clean = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; {SAY}"],
        cwd=ROOT,
        env={**clean, **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize("package", ["synccontrol", "synccontrol.evaluate", "benchmarks", "training"])
def test_it_is_chosen_before_torch_is_loaded(package: str) -> None:
    assert policy(f"import {package}") == "PASSIVE"


def test_it_is_what_openmp_was_told() -> None:
    shown = "import synccontrol, torch; torch.ones(100).sum()"
    done = subprocess.run(
        [sys.executable, "-c", shown],
        cwd=ROOT,
        env={**{k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}, "OMP_DISPLAY_ENV": "TRUE"},
        check=True,
        capture_output=True,
        text=True,
    )
    if "OMP_WAIT_POLICY" not in done.stderr:
        pytest.skip("this OpenMP does not show its environment")
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr


def test_the_users_choice_stands() -> None:
    assert policy("import synccontrol", OMP_WAIT_POLICY="ACTIVE") == "ACTIVE"
    assert policy("import torch, synccontrol") == "None"  # too late to matter: nothing is touched

"""The preprocessors are one module object under two names, and leave other modules called `preprocess` alone."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ORDERS = {
    "preprocess first": "import preprocess.people.skeleton as first, synccontrol.preprocess.people.skeleton as second",
    "synccontrol first": "import synccontrol.preprocess.people.skeleton as first, preprocess.people.skeleton as second",
    "packages": "import preprocess as first, synccontrol.preprocess as second",
    "from": "from preprocess.controls import qr as first; from synccontrol.preprocess.controls import qr as second",
}


@pytest.mark.parametrize("imports", ORDERS.values(), ids=ORDERS)
def test_both_names_are_one_module(imports: str) -> None:
    code = f"{imports}; print(first is second, first.__name__, first.__spec__.name == first.__name__)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    same, name, spec = process.stdout.split()
    assert (same, spec) == ("True", "True") and name.startswith("synccontrol.preprocess")


def test_another_module_called_preprocess_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "preprocess.py").write_text("OWN = 1\n")
    code = (
        "import sys; sys.path.append(sys.argv[1]); import synccontrol, synccontrol.preprocess; "
        "from synccontrol import SamplingConfig; import preprocess; "
        "print(preprocess.OWN, sorted(synccontrol.preprocess.names())[0])"
    )
    command = [sys.executable, "-c", code, str(ROOT)]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert process.stdout.split() == ["1", "canny"]

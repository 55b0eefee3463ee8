"""What is installed is the whole program: the command, all packages, their models; and examples run as documented."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
OFFLINE = ["--no-deps", "--no-build-isolation", "--no-index"]
EXAMPLES = sorted(ROOT.glob("examples/*.py"))


def run(command: list[str | Path], folder: Path, **environment: str) -> str:
    """Returns what a command prints; its environment holds nothing that this one does not need."""
    clean = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        command, cwd=folder, env={**clean, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of programs of an environment in which the project is installed as `make demo` does it."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False)
    binaries = home / "bin"
    libraries = run([binaries / "python", "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"], home)
    Path(libraries.strip(), "libraries.pth").write_text(sysconfig.get_paths()["purelib"])
    run([*PIP, "--python", binaries / "python", "install", *OFFLINE, "-e", ROOT], home)
    return binaries


def test_the_command_is_there(binaries: Path, tmp_path: Path) -> None:
    assert run([binaries / "synccontrol", "--help"], tmp_path).startswith("usage: synccontrol ")
    assert run([binaries / "python", "-m", "synccontrol", "-h"], tmp_path).startswith("usage: python -m synccontrol ")
    assert run([binaries / "python", ROOT / "cli.py", "-h"], tmp_path).startswith("usage: cli.py ")


def test_scripts_anywhere_find_the_library(binaries: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import preprocess, synccontrol; print(synccontrol.__file__)")
    assert Path(run([binaries / "python", script], tmp_path).strip()) == ROOT / "synccontrol" / "__init__.py"


def test_a_wheel_holds_everything(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("synccontrol", "preprocess"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run([*PIP, "wheel", *OFFLINE, "--wheel-dir", tmp_path, source], tmp_path)
    (wheel,) = tmp_path.glob("synccontrol-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entries,) = (name for name in names if name.endswith("entry_points.txt"))
        assert "synccontrol = synccontrol.command.cli:main" in archive.read(entries).decode()
        (metadata,) = (name for name in names if name.endswith("METADATA"))
        assert "Requires-Dist: diffusers" in archive.read(metadata).decode()
    files = [path for path in source.glob("*/**/*") if path.is_file() and "build" not in path.relative_to(source).parts]
    wanted = {path.relative_to(source).as_posix() for path in files if ".egg-info" not in str(path)}
    assert "synccontrol/models/tiny/unet/diffusion_pytorch_model.safetensors" in wanted
    assert wanted <= names


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples_run_as_documented(example: Path, binaries: Path, tmp_path: Path) -> None:
    assert f"python examples/{example.name}" in example.read_text(encoding="utf-8")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    run([binaries / "python", f"examples/{example.name}"], tmp_path, HF_HUB_OFFLINE="1")
    (picture,) = tmp_path.glob("*.png")
    with Image.open(picture) as image:
        assert image.height == 256 and image.width >= 1024

"""What is installed is the whole program: the command, all packages, their models; and examples run as documented."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import nbformat
import pytest
import yaml
from nbclient import NotebookClient
from PIL import Image

import synccontrol
from synccontrol.models import loader
from tests.families.tiny_additions import save_lora

ROOT = Path(__file__).parent.parent
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
OFFLINE = ["--no-deps", "--no-build-isolation", "--no-index"]
PACKAGES = ("synccontrol", "preprocess")
EXAMPLES = sorted(ROOT.glob("examples/*.py"))


def run(command: list[str | Path], folder: Path, **environment: str) -> str:
    """Returns what a command prints; its environment holds nothing that this one does not need."""
    clean = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        command, cwd=folder, env={**clean, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment(home: Path, *installed: str | Path) -> Path:
    """Returns the folder of programs of a new environment in which something is installed, beside this one's libraries.

    Only the libraries are shared: they are gigabytes.
    """
    venv.create(home, with_pip=False)
    binaries = home / "bin"
    libraries = run([binaries / "python", "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"], home)
    Path(libraries.strip(), "libraries.pth").write_text(sysconfig.get_paths()["purelib"])
    run([*PIP, "--python", binaries / "python", "install", *OFFLINE, *installed], home)
    return binaries


@pytest.fixture(scope="session")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of programs of an environment in which the project is installed as `make demo` does it."""
    return environment(tmp_path_factory.mktemp("environment"), "-e", ROOT)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a wheel of the project."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run([*PIP, "wheel", *OFFLINE, "--wheel-dir", folder, source], folder)
    (built,) = folder.glob("synccontrol-*.whl")
    return built


def test_the_command_is_there(binaries: Path, tmp_path: Path) -> None:
    assert run([binaries / "synccontrol", "--help"], tmp_path).startswith("usage: synccontrol ")
    assert run([binaries / "python", "-m", "synccontrol", "-h"], tmp_path).startswith("usage: python -m synccontrol ")
    assert run([binaries / "python", ROOT / "cli.py", "-h"], tmp_path).startswith("usage: cli.py ")


def test_scripts_anywhere_find_the_library(binaries: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import preprocess, synccontrol; print(synccontrol.__file__)")
    assert Path(run([binaries / "python", script], tmp_path).strip()) == ROOT / "synccontrol" / "__init__.py"


def test_a_wheel_holds_everything(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entries,) = (name for name in names if name.endswith("entry_points.txt"))
        assert "synccontrol = synccontrol.cli.main:main" in archive.read(entries).decode()
        (metadata,) = (name for name in names if name.endswith("METADATA"))
        assert "Requires-Dist: diffusers" in archive.read(metadata).decode()
    link = ROOT / "synccontrol" / "preprocess"
    own = [path for path in (ROOT / "synccontrol").rglob("*") if link not in path.parents]
    files = [path for path in (*own, *link.resolve().rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
    places = (path.relative_to(ROOT).as_posix() for path in files)
    wanted = {f"synccontrol/{place}" if place.startswith("preprocess/") else place for place in places}
    assert not [name for name in names if name.startswith("preprocess/")]  # which may be some program's own
    assert "synccontrol/models/tiny/unet/diffusion_pytorch_model.safetensors" in wanted
    assert wanted <= names


def test_the_version_is_said_everywhere_alike() -> None:
    version = synccontrol.__version__
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == version
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version and {"message", "title", "authors", "cff-version"} <= set(citation)
    assert f"\n## {version}\n" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.slow
def test_a_wheel_draws_elsewhere(wheel: Path, tmp_path: Path) -> None:
    binaries = environment(tmp_path / "environment", wheel)
    where = run([binaries / "python", "-c", "import synccontrol; print(synccontrol.__file__)"], tmp_path)
    assert Path(where.strip()).is_relative_to(tmp_path / "environment")
    guide = tmp_path / "guide.png"
    shutil.copy(ROOT / "examples" / "guides" / "valley.png", guide)
    said = run([binaries / "synccontrol", "doctor"], tmp_path)
    assert "the bundled model and its ControlNets load" in said
    flags = ["--control", "depth", "--guide", guide, "--prompt", "a mountain valley at sunset", "--offline"]
    assert run([binaries / "synccontrol", *flags], tmp_path).split() == ["out/guide.png"]
    with Image.open(tmp_path / "out" / "guide.png") as image:
        assert image.size == (1536, 256)


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples_run_as_documented(example: Path, binaries: Path, tmp_path: Path) -> None:
    """In a clean environment, from a folder that is no checkout."""
    assert f"python examples/{example.name}" in example.read_text(encoding="utf-8")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    said = run([binaries / "python", f"examples/{example.name}"], tmp_path, HF_HUB_OFFLINE="1")
    assert said.strip()
    pictures = [path for path in tmp_path.rglob("*.png") if "examples" not in path.parts]
    assert pictures
    for picture in pictures:
        with Image.open(picture) as image:
            assert image.height == 256 and image.width >= 1024


@pytest.mark.slow
def test_a_newcomers_way_from_a_fresh_clone(tmp_path: Path) -> None:
    """`make demo`, and then the README's commands as they stand there; only the download is left out."""
    clone = tmp_path / "clone"
    run(["git", "clone", "--quiet", "--depth", "1", f"file://{ROOT}", clone], tmp_path)
    binaries = environment(clone / ".venv", "-e", clone)
    (clone / ".venv" / ".run").touch()  # what `make` leaves when it has installed
    assert "Try next" in run(["make", "demo"], clone)
    assert (clone / "out" / "demo.png").is_file()
    readme = (clone / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^synccontrol .*$", readme, re.MULTILINE)
    drawn = [shlex.split(line)[1:] for line in lines if "--model" not in line]  # others are downloads
    assert len(drawn) >= 3
    for argv in drawn:
        made = run([binaries / "synccontrol", *argv, "--preset", "fast", "--quiet"], clone).split()
        assert made and all((clone / picture).is_file() for picture in made)


@pytest.mark.slow
def test_a_lora_is_used_as_documented(binaries: Path, tmp_path: Path) -> None:
    file = save_lora(loader.load("tiny", []), tmp_path)
    for arguments in ([], [str(file)]):
        run(
            [binaries / "python", ROOT / "examples" / "own_pipeline.py", "tiny", *arguments],
            tmp_path,
            HF_HUB_OFFLINE="1",
        )
        (tmp_path / "own-pipeline.png").rename(tmp_path / f"{len(arguments)}.png")
    assert (tmp_path / "0.png").read_bytes() != (tmp_path / "1.png").read_bytes()


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    (tmp_path / "guides").symlink_to(ROOT / "examples" / "guides")
    notebook = nbformat.read(ROOT / "examples" / "demo.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "its outputs are not kept in the repository"
    done = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    shown = [
        output for cell in done.cells for output in cell.get("outputs", ()) if "image/png" in output.get("data", {})
    ]
    assert len(shown) >= 6
    assert (tmp_path / "notebook.png").is_file()

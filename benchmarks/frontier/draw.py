"""Drawing: which montages are missing, in which order they are drawn, and how long that takes."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.frontier.material import NONE, Item, item, item_name, write_reference
from benchmarks.frontier.methods import ALL_STEPS, RENDERED, Method, methods
from synccontrol import Montage
from synccontrol.evaluate import scoring
from synccontrol.io import metadata
from synccontrol.models import devices, loader
from synccontrol.models.presets import PresetSettings
from synccontrol.spec.image_settings import DEFAULT, PRESETS

TRIAL_STEPS = 2  # of the pictures that time the machine


@dataclass(frozen=True, kw_only=True)
class Job:
    """One montage to draw."""

    control: str
    method: str
    index: int
    path: Path


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A drawn montage, and what it took."""

    image: Image.Image
    settings: Mapping[str, Any]
    seconds: float  # wall clock
    cpu_seconds: float  # of all threads


def cell(out: Path, control: str, method: str) -> Path:
    """Returns the folder of the montages of a control and a method."""
    return out / "montages" / method / control


def plan(out: Path, controls: Sequence[str], names: Sequence[str], per_cell: int, all_steps: int) -> list[Job]:
    """Returns the montages that are missing, seed by seed, so that a run cut short leaves balanced cells.

    Args:
        out: the bench's folder.
        controls: control types, or `NONE`.
        names: of methods.
        per_cell: montages of each method under each control.
        all_steps: how many at most where all steps are synced, which is slow.
    """
    jobs = [
        Job(control=control, method=name, index=index, path=cell(out, control, name) / f"{item_name(index)}.png")
        for index in range(per_cell)
        for control in controls
        for name in names
        if name != ALL_STEPS or index < all_steps
    ]
    return [job for job in jobs if not job.path.exists()]


class Studio:
    """Draws the jobs of a run with one model; its ControlNets are loaded when they are first needed."""

    def __init__(
        self,
        model: str,
        width: int | None,
        steps: int | None,
        *,
        control_scale: float | None = None,
        device: str,
        dtype: str,
        offline: bool,
    ) -> None:
        self.model = model
        self._device, self._dtype, self._offline = device, devices.DTYPES[dtype], offline
        changes: dict[str, Any] = {"steps": steps, "control_scale": control_scale}
        self.changes = {name: value for name, value in changes.items() if value is not None}
        presets: dict[str, PresetSettings] = {name: loader.defaults(model, name, offline) for name in PRESETS}
        self.geometry = loader.geometry(model, offline)
        self.height, self.window = self.geometry.window_px  # px
        self.width = width or 4 * self.window
        self.stride = presets[DEFAULT].windows.stride * self.geometry.cell  # px
        self.methods = {
            name: replace(method, settings=self._changed(method.settings)) for name, method in methods(presets).items()
        }
        self._montages: dict[str, Montage] = {}

    def _changed(self, settings: PresetSettings) -> PresetSettings:
        return replace(settings, sampling=settings.sampling.replace(**self.changes))

    def write_material(self, out: Path, controls: Sequence[str], per_cell: int) -> None:
        """Writes the guides' control maps, the rendered scenes and the reference windows; what is there is kept."""
        write_reference(reference(out), self.height)
        for control in controls:
            for index in range(per_cell):
                rendered = cell(out, control, RENDERED) / f"{item_name(index)}.png"
                if rendered.exists():
                    continue
                made = self.item(control, index)
                if made.guide is not None:
                    _save(made.guide, guides(out, control) / rendered.name)
                _save(Image.fromarray(made.scene.image), rendered)

    def item(self, control: str, index: int) -> Item:
        """Returns montage `index` of a control's cell at this run's size."""
        return item(index, control, self.height, self.width)

    def run(self, job: Job) -> None:
        """Draws one montage into its file, and its seconds into the folder's timings."""
        drawn = self.draw(self.item(job.control, job.index), job.control, self.methods[job.method])
        job.path.parent.mkdir(parents=True, exist_ok=True)
        scoring.append_timing(job.path, drawn.seconds, drawn.cpu_seconds)
        metadata.save_png(drawn.image, job.path, drawn.settings)

    def draw(self, made: Item, control: str, method: Method) -> Timed:
        """Returns one montage and what it took; the model is loaded before the clock starts."""
        montage = self._montage(control)
        start, cpu_start = time.perf_counter(), time.process_time()
        if method.overlap:
            image, config = self._one(montage, made, made.guide, self.width, made.seed, method)
        else:
            image, config = self._side_by_side(montage, made, method)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
        settings = {**config, "model": self.model, "control": [] if control == NONE else [control]}
        return Timed(image=image, settings=settings, seconds=seconds, cpu_seconds=cpu_seconds)

    def _one(
        self,
        montage: Montage,
        made: Item,
        guide: Image.Image | None,
        width: int,
        seed: int,
        method: Method,
    ) -> tuple[Image.Image, dict[str, Any]]:
        """Returns one picture and its settings."""
        result = montage(
            made.prompt,
            guide,
            height=self.height,
            width=width,
            seed=seed,
            sampling=method.settings.sampling,
            windows=method.settings.windows,
            sync=method.settings.sync,
        )
        return result.image, result.config

    def _side_by_side(self, montage: Montage, made: Item, method: Method) -> tuple[Image.Image, dict[str, Any]]:
        """Returns windows that were drawn one by one, each from noise of its own, as one picture; and its settings."""
        canvas = Image.new("RGB", (self.width, self.height))
        config: dict[str, Any] = {}
        lefts = range(0, self.width, self.window)
        for number, left in enumerate(lefts):
            crop = made.guide.crop((left, 0, left + self.window, self.height)) if made.guide else None
            seed = made.seed * len(lefts) + number
            image, config = self._one(montage, made, crop, self.window, seed, method)
            canvas.paste(image, (left, 0))
        stride = self.window // self.geometry.cell
        return canvas, {**config, "width": self.width, "seed": made.seed, "stride": stride}

    def _montage(self, control: str) -> Montage:
        if control not in self._montages:
            controls = [] if control == NONE else [control]
            self._montages[control] = Montage.from_pretrained(
                self.model, controls, device=self._device, dtype=self._dtype, offline=self._offline
            )
        return self._montages[control]

    def trial(self, control: str, names: Sequence[str]) -> dict[str, float]:
        """Returns how long a montage of each method will take here, in seconds: from short pictures, extrapolated.

        A first picture of each warms up: it loads networks and objective, and is not timed.
        """
        made = self.item(control, 0)

        def seconds(name: str, trial_steps: int, synced: int) -> float:
            settings = self.methods[name].settings
            sampling = settings.sampling.replace(steps=trial_steps)
            sync = settings.sync.replace(steps=synced, every=1)
            shorter = replace(settings, sampling=sampling, sync=sync)
            return self.draw(made, control, replace(self.methods[name], settings=shorter)).seconds

        for name in names:
            seconds(name, 1, 1)
        found = {}
        for name in names:
            plain, longer = seconds(name, TRIAL_STEPS, 0), seconds(name, 2 * TRIAL_STEPS, 0)
            step = max(longer - plain, 0.0) / TRIAL_STEPS
            sync, steps = self.methods[name].settings.sync, self.methods[name].settings.sampling.steps
            due = sum(sync.due(i) for i in range(steps)) if self.methods[name].overlap else 0
            extra = max(seconds(name, TRIAL_STEPS, 1) - plain, 0.0) if due else 0.0
            found[name] = plain + (steps - TRIAL_STEPS) * step + due * extra
        return found


def guides(out: Path, control: str) -> Path:
    """Returns the folder of a control's exact maps."""
    return out / "guides" / control


def reference(out: Path) -> Path:
    """Returns the folder of the rendered windows that FID and KID compare with."""
    return out / "reference"


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)

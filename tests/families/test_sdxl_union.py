"""Union ControlNets: one window is the stock pipeline with one control and with two, and many are a literal loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image
from torch import Tensor

import preprocess
from synccontrol import Montage, SamplingConfig, SyncConfig, WindowConfig, families
from synccontrol.batch import memory_estimate
from synccontrol.canvas.flat import Layout
from synccontrol.cli import main
from synccontrol.cli.terminal import DONE
from synccontrol.errors import ConfigError, InputError, ModelError
from synccontrol.families.sdxl import UNION_TYPES
from synccontrol.models import loader
from synccontrol.spec.image_spec import INPAINT
from tests.conftest import CELL, WINDOW
from tests.families import tiny_sdxl
from tests.families.test_sdxl import EXACT, NEGATIVE, PROMPT, SIZE, STEPS, STRIDE, Told, assert_different, assert_same
from tests.families.tiny_sdxl import PROMAX, UNION, load_union
from tests.sampling.published import Published, Settings, map_tensor

STOCK = {"ddim": "DDIMScheduler", "euler": "EulerDiscreteScheduler", "unipc": "UniPCMultistepScheduler"}
MapMaker = Callable[..., Image.Image]
NoiseMaker = Callable[..., Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny checkpoint with union ControlNets."""
    return tiny_sdxl.save(tmp_path_factory.mktemp("sdxl-union"))


@pytest.fixture
def maps(make_map: MapMaker) -> list[Image.Image]:
    return [make_map(SIZE, SIZE, seed) for seed in (0, 1)]


def stock(pipe: Any, noise: Tensor, maps: Sequence[Image.Image], modes: Sequence[int], **options: Any) -> Tensor:
    """Return the stock pipeline's final latents."""
    pipe.scheduler = getattr(diffusers, STOCK[options.pop("scheduler", "ddim")]).from_config(pipe.scheduler.config)
    latents: Tensor = pipe(
        PROMPT,
        negative_prompt=NEGATIVE,
        control_image=list(maps),
        control_mode=list(modes),
        height=SIZE,
        width=SIZE,
        guidance_scale=7.5,
        num_inference_steps=STEPS,
        latents=noise,
        output_type="latent",
        **options,
    ).images
    return latents


def montage(pipe: Any, noise: Tensor, maps: Any, controls: Sequence[str], **sampling: Any) -> Tensor:
    """Return the final latents of a canvas of one window."""
    return Montage.from_pipe(pipe, controls)(
        PROMPT,
        maps,
        height=SIZE,
        width=SIZE,
        negative_prompt=NEGATIVE,
        latents=noise,
        sampling=SamplingConfig(**{"steps": STEPS, "scheduler": "ddim", **sampling}).complete(),
        windows=WindowConfig(stride=STRIDE).complete(),
        sync=SyncConfig(weight=0.0).complete(),
    ).latents


@pytest.mark.parametrize("scheduler", STOCK)
def test_one_control_is_the_stock_pipeline(
    folder: Path, make_noise: NoiseMaker, maps: list[Image.Image], scheduler: str
) -> None:
    noise = make_noise(WINDOW, WINDOW, dtype=torch.float32)
    own = {"scheduler": scheduler, "controlnet_conditioning_scale": 0.7, "control_guidance_end": 0.7}
    theirs = stock(load_union(folder, UNION), noise, maps[:1], [1], **own)
    options = {"scheduler": scheduler, "control_scale": 0.7, "control_end": 0.7}
    ours = montage(load_union(folder, UNION), noise, maps[0], ["depth"], **options)
    assert_same(ours, theirs)
    assert_different(montage(load_union(folder, UNION), noise, maps[0], ["canny"], **options), ours)


@pytest.mark.parametrize("scheduler", STOCK)
def test_two_controls_in_one_net_are_the_stock_pipeline(
    folder: Path, make_noise: NoiseMaker, maps: list[Image.Image], scheduler: str
) -> None:
    noise = make_noise(WINDOW, WINDOW, dtype=torch.float32)
    own = {"scheduler": scheduler, "controlnet_conditioning_scale": [1.0, 0.4]}
    own |= {"control_guidance_start": [0.2, 0.0], "control_guidance_end": [0.8, 0.5]}  # at last both are at 0
    theirs = stock(load_union(folder, PROMAX), noise, maps, [3, 6], **own)
    options = {"scheduler": scheduler, "control_scale": (1.0, 0.4)}
    options |= {"control_start": (0.2, 0.0), "control_end": (0.8, 0.5)}
    ours = montage(load_union(folder, PROMAX), noise, maps, ["lineart", "tile"], **options)
    assert_same(ours, theirs)
    assert_different(montage(load_union(folder, PROMAX), noise, maps[::-1], ["lineart", "tile"], **options), ours)


def test_two_union_nets_are_the_stock_pipeline(folder: Path, make_noise: NoiseMaker, maps: list[Image.Image]) -> None:
    noise = make_noise(WINDOW, WINDOW, dtype=torch.float32)
    theirs = stock(load_union(folder, UNION, PROMAX), noise, maps, [0, 5], controlnet_conditioning_scale=[0.5, 1.0])
    pipe, controls = load_union(folder, UNION, PROMAX), ["pose", "segmentation"]
    assert_same(montage(pipe, noise, maps, controls, control_scale=(0.5, 1.0)), theirs)


class ToldUnion(Told):
    """A union that is told its types, and is given every crop that the literal loop cuts for it."""

    def __init__(self, network: Any, pooled: Sequence[Tensor], numbers: Sequence[int]) -> None:
        super().__init__(network, pooled)
        self.numbers = list(numbers)

    def __call__(self, z: Tensor, *args: Any, **options: Any) -> Any:
        crops = list(options.pop("controlnet_cond").split(3, dim=1))
        types = torch.zeros(len(z), self.config.num_control_type, dtype=z.dtype)
        types[:, self.numbers] = 1
        options["conditioning_scale"] = [options["conditioning_scale"]] * len(crops)
        told = {"controlnet_cond": crops, "control_type": types, "control_type_idx": self.numbers}
        return super().__call__(z, *args, **told, **options)


class Literal(Published):
    """The published program with Stable Diffusion XL and a union; the channels of its maps lie above each other."""

    def __init__(self, pipe: Any, numbers: Sequence[int], settings: Settings, objective: Any) -> None:
        with torch.no_grad():
            encoded = [pipe.encode_prompt(prompt, do_classifier_free_guidance=False) for prompt in (NEGATIVE, PROMPT)]
        pooled = [states[2] for states in encoded]
        self.pipe: Any = SimpleNamespace(
            unet=Told(pipe.unet, pooled),
            controlnet=ToldUnion(pipe.controlnet, pooled, numbers),
            vae=pipe.vae,
            scheduler=pipe.scheduler,
            vae_scale_factor=CELL,
        )
        self.settings, self.objective, self.guided = settings, objective, True
        self.text, self.conditional = torch.cat([states[0] for states in encoded]), encoded[1][0]


@pytest.mark.parametrize("guess_mode", [False, True])
@pytest.mark.parametrize("controls", [["normal"], ["pose", "scribble"]], ids=len)
def test_windows_denoised_together_are_the_literal_loop(
    folder: Path, make_map: MapMaker, make_noise: NoiseMaker, controls: list[str], guess_mode: bool
) -> None:
    """With guidance and guess mode the stock pipeline stops at an error; the published order is the judge."""
    h, w = WINDOW, 5 * STRIDE
    pipe, noise = load_union(folder, UNION, dtype=torch.float64), make_noise(h, w)
    maps = [make_map(w * CELL, h * CELL, seed) for seed in range(len(controls))]

    def objective(pictures: Tensor, anchor: Tensor) -> Tensor:
        return 10 * (pictures - anchor).square().mean((1, 2, 3))

    settings = Settings(
        steps=3, stride=STRIDE, clamp=False, guess_mode=guess_mode, sync_weight=500.0, sync_steps=1, loop=True
    )
    program = Literal(pipe, [UNION_TYPES[control] for control in controls], settings, objective)
    theirs = program.run(noise, torch.cat([map_tensor(map_, torch.float64) for map_ in maps], dim=1))
    ours = Montage.from_pipe(pipe, controls)(
        PROMPT,
        maps,
        negative_prompt=NEGATIVE,
        latents=noise,
        sampling=SamplingConfig(steps=3, scheduler="ddim", guess_mode=guess_mode).complete(),
        windows=WindowConfig(stride=STRIDE, batch=2, loop=True).complete(),
        sync=SyncConfig(weight=500.0, steps=1, objective=objective).complete(),
    ).latents
    assert_same(ours, theirs, EXACT)


def test_a_union_beside_another_controlnet(folder: Path, make_noise: NoiseMaker, maps: list[Image.Image]) -> None:
    noise, controls = make_noise(WINDOW, WINDOW, dtype=torch.float32), ["canny", "depth", "normal"]
    own = {"canny": str(folder / "controlnet-canny"), "depth": str(folder / UNION), "normal": str(folder / UNION)}
    pipe = loader.load(str(folder), controls, list(own.values()), offline=True)
    nets = list(pipe.controlnet.nets)
    assert nets[1] is nets[2]
    embeddings = [net.controlnet_cond_embedding for net in nets]
    three = montage(pipe, noise, [*maps, maps[0]], controls, control_scale=(1.0, 0.5, 0.0))
    assert [net.controlnet_cond_embedding for net in nets] == embeddings
    pipe = loader.load(str(folder), controls[:2], list(own.values())[:2], offline=True)
    two = montage(pipe, noise, maps, controls[:2], control_scale=(1.0, 0.5))
    assert torch.equal(three, two)
    one = montage(loader.load(str(folder), ["canny"], [own["canny"]], offline=True), noise, maps[:1], ["canny"])
    assert_different(two, one)


def test_one_union_is_named_for_all_controls(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    controls, named = ["depth", "canny"], [str(folder / UNION)]
    pipe = loader.load(str(folder), controls, named, offline=True)
    assert type(pipe).__name__ == "StableDiffusionXLControlNetUnionPipeline"
    loaded = Montage.from_pretrained(str(folder), controls, controlnets=named, offline=True)
    assert loaded.denoiser.controls == 2
    with pytest.raises(InputError, match="1 control maps were given for 2"):
        loaded(PROMPT, Image.new("RGB", (SIZE, SIZE)))
    layout = Layout(height=WINDOW, width=4 * WINDOW, window=(WINDOW, WINDOW), stride=STRIDE)
    with memory_estimate.fake_mode():
        family = families.wrap(loader.blank(str(folder), controls, named, torch.float32, offline=True), controls)
        found = memory_estimate.estimate(
            family, layout, SamplingConfig().complete(), WindowConfig(batch=2).complete(), SyncConfig().complete(), None
        )
    modules = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert found.weights == sum(tensor.nbytes for module in modules for tensor in module.state_dict().values())
    flags = ["--model", str(folder), "--prompt", "x", "--controlnet", *named, "--output", str(tmp_path / "out.png")]
    for control in controls:
        Image.new("RGB", (2 * SIZE, SIZE), "grey").save(tmp_path / f"{control}.png")
        flags += ["--control", control, "--control-map", str(tmp_path / f"{control}.png")]
    assert main.main([*flags, "--steps", "1", "--sync-weight", "0", "--offline", "--dry-run"]) == DONE
    assert main.main([*flags, "--steps", "1", "--sync-weight", "0", "--offline"]) == DONE, capsys.readouterr().err
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size == (2 * SIZE, SIZE)


@pytest.mark.parametrize(
    ("names", "controls", "error", "message"),
    [
        ([UNION], [], ConfigError, r"what its control maps show; name their types"),
        ([UNION], ["tile"], ModelError, "does not follow 'tile'; it follows pose, depth, softedge, scribble, canny"),
        ([PROMAX], ["mood"], ModelError, "does not follow 'mood'"),
        ([UNION, PROMAX], ["depth"], ConfigError, "1 controls are named for 2 ControlNets"),
    ],
)
def test_a_union_needs_control_types(
    folder: Path, names: list[str], controls: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Montage.from_pipe(load_union(folder, *names), controls)


def test_other_families_reject_a_union(checkpoint: Path, folder: Path) -> None:
    with pytest.raises(ModelError, match="takes no union ControlNet"):
        loader.load(str(checkpoint), ["depth"], [str(folder / UNION)], offline=True)


def test_the_types_are_control_types_of_the_published_unions() -> None:
    assert set(UNION_TYPES) <= {*preprocess.names(), INPAINT}
    assert max(UNION_TYPES.values()) < 8

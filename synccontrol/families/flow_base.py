"""The ground of flow-matching transformers: prompts, control latents and guidance; networks are called in one place."""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import diffusers
import torch
from torch import Tensor, nn
from transformers import AutoConfig

from synccontrol.errors import ConfigError, ModelError
from synccontrol.families import checkpoints
from synccontrol.families import checkpoints as sources
from synccontrol.families.base import AbstractFamily, Crops, Encoded, View, control_scales
from synccontrol.families.checkpoints import default_dtype
from synccontrol.families.unet_base import EMBEDDING_BUDGET, Hints
from synccontrol.sampling.batching import Note
from synccontrol.sampling.loop import Predict
from synccontrol.sampling.noise_level import Level
from synccontrol.spec.settings import Geometry, SamplingConfig

PATCH = 2  # cells along one side of what these transformers see as a token


@dataclasses.dataclass(frozen=True, kw_only=True)
class Control:
    """What a ControlNet is to follow in one call."""

    latents: Tensor  # (k, c, h, w): of what the windows see of its control map
    scale: float


# windows (k, c, h, w), their level, captions of each kind (tokens, features), one a window -> eps - x0 for each kind
Velocities = Callable[[Tensor, Level, Sequence[Sequence[Tensor]], Control | None], Sequence[Tensor]]
Guide = Callable[[Tensor, Tensor, float], Tensor]  # conditional, unconditional, guidance scale -> guided


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Returns the guided prediction (classifier-free guidance, arXiv 2207.12598); scale 1 is the conditional one."""
    return conditional + (scale - 1) * (conditional - unconditional)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowPredict:
    """The prediction of views for one picture. It is a `Predict`."""

    velocities: Velocities
    guide: Guide
    captions: Sequence[Sequence[Tensor]]  # of every view: conditional and unconditional; no latter without guidance
    hints: Hints | None  # control latents
    windows: Sequence[int]  # of each view
    sampling: SamplingConfig
    steps: int
    dtype: torch.dtype  # of the networks

    def __call__(self, z: Tensor, level: Level, views: Sequence[int]) -> Tensor:
        heard = self.captions if self.sampling.guided(level.index, self.steps) else self.captions[:1]
        captions = [[of_views[view] for view in views] for of_views in heard]
        found = self.velocities(z.to(self.dtype), level, captions, self._control(level, views))
        velocities = [velocity.to(z.dtype) for velocity in found]
        if len(velocities) == 1:
            return velocities[0]
        conditional, unconditional = velocities
        return self.guide(conditional, unconditional, self.sampling.guidance_scale)

    def _control(self, level: Level, views: Sequence[int]) -> Control | None:
        if self.hints is None:
            return None
        (scale,) = control_scales(self.sampling, level.index, self.steps, 1)
        return Control(latents=self.hints([self.windows[view] for view in views]), scale=scale) if scale else None


class AbstractFlow(AbstractFamily):
    """A loaded pipeline whose denoiser is a flow-matching transformer, with one ControlNet or none.

    Args:
        pipe: the diffusers pipeline.
        geometry: its native sizes.
        controls: the control type of its map, which the ControlNet need not be told.
        guide: how its predictions are guided.

    Raises:
        ModelError: its windows cannot be cut into patches.
        ConfigError: there are several controls, or one without a ControlNet.
    """

    def __init__(self, pipe: Any, geometry: Geometry, controls: Sequence[str] = (), guide: Guide = guided) -> None:
        if any(side < PATCH or side % PATCH for side in geometry.window):
            h, w = geometry.window
            raise ModelError(
                f"windows of {w}x{h} cells cannot be cut into patches of {PATCH}x{PATCH}, as this model sees them; "
                "choose a model whose native size is a multiple of that"
            )
        self.pipe = pipe
        self.geometry = geometry
        self._guide = guide
        self._net: Any = getattr(pipe, "controlnet", None)
        self.controls = int(self._net is not None)
        if controls and len(controls) != self.controls:
            raise ConfigError(f"{len(controls)} controls are named for {self.controls} ControlNets; name one for each")

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.pipe.transformer.dtype
        return dtype

    def shift(self) -> float | None:
        config = self.pipe.scheduler.config
        if not config.get("use_dynamic_shifting"):
            return None
        # The line that the pipelines draw; it is meant for a picture, and a window is what the model takes for one.
        h, w = self.geometry.window
        few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
        return float(low + (h * w // PATCH**2 - few) * (high - low) / (many - few))

    @torch.no_grad()
    def condition(
        self, views: Sequence[View], crops: Sequence[Crops], sampling: SamplingConfig, steps: int, note: Note
    ) -> Predict:
        if any(view.reference is not None for view in views):
            raise ConfigError("this model takes no IP-Adapter to show a picture; leave the picture out")
        if crops and sampling.guess_mode:
            raise ConfigError("this model's ControlNets have no guess mode; leave it out")
        for name in ("clip_skip", "guidance_rescale"):
            if getattr(sampling, name):
                raise ConfigError(f"this model has no {name.replace('_', ' ')}; leave it out")
        prompts = [[view.prompt for view in views]]
        if sampling.guidance_scale > 1:
            prompts.append([view.negative_prompt for view in views])
        elif any(view.negative_prompt != "" for view in views):
            note("the negative prompt does nothing: there is no guidance (guidance scale 1)")
        windows = [view.window for view in views]
        captions = [self._captions(of_views, note) for of_views in prompts]
        hints = Hints(self._hint, crops[0], EMBEDDING_BUDGET) if crops else None
        if hints is not None and self.offloaded:
            for window in windows:  # so that the autoencoder comes once, and not between two calls of the transformer
                hints([window])
        return FlowPredict(
            velocities=self._velocities,
            guide=self._guide,
            captions=captions,
            hints=hints,
            windows=windows,
            sampling=sampling,
            steps=steps,
            dtype=self.dtype,
        )

    def _captions(self, prompts: Sequence[str | Encoded], note: Note) -> list[Tensor]:
        """Returns the states (tokens, features) of prompts; prompts that are the same share them."""
        states = {prompt: self._caption(prompt, note) for prompt in dict.fromkeys(prompts)}
        return [states[prompt] for prompt in prompts]

    def _caption(self, prompt: str | Encoded, note: Note) -> Tensor:
        states: Tensor = (
            self._read_once(prompt, partial(self._encode, prompt), note) if isinstance(prompt, str) else prompt[0][0]
        )
        return states.to(device=self.device, dtype=self.dtype)

    def _hint(self, crops: Tensor) -> Tensor:
        """Returns the control latents (k, c, h, w) of what windows see of a control map, (k, 3, H, W) in 0..1."""
        pictures = (2 * crops - 1).to(device=self.device, dtype=self.pipe.vae.dtype)
        return self._latents(pictures).to(self.dtype)

    @abc.abstractmethod
    def _encode(self, prompt: str, note: Note) -> Tensor:
        """Returns the states (tokens, features) of one prompt."""

    def encode(self, pictures: Tensor) -> Tensor:
        return self._latents(pictures.to(device=self.device, dtype=self.pipe.vae.dtype)).to(pictures.dtype)

    @abc.abstractmethod
    def _latents(self, pictures: Tensor) -> Tensor:
        """Returns the latents (k, c, h, w) of pictures (k, 3, H, W) in -1..1: the mode, so that windows agree."""

    @abc.abstractmethod
    def _velocities(
        self, z: Tensor, level: Level, captions: Sequence[Sequence[Tensor]], control: Control | None
    ) -> Sequence[Tensor]:
        """Returns the prediction eps - x0 of windows z (k, c, h, w), for captions of every kind. It is `Velocities`."""


def only(controlnets: Sequence[Any], model: str) -> Any:
    """Returns the one ControlNet of a list. Raises `ModelError` when there are more."""
    if len(controlnets) > 1:
        raise ModelError(
            f"{model} takes one ControlNet, and {len(controlnets)} are named; name the one that matters most"
        )
    return controlnets[0]


def note_cut(tokenizer: Any, text: str, longest: int, note: Note) -> None:
    """Notes when a text has more tokens than are read."""
    ids = tokenizer(text, verbose=False).input_ids
    if len(ids) > longest:
        end = tokenizer.decode(ids[longest - 4 : longest])
        note(f"the prompt has {len(ids)} tokens, of which the model reads {longest}: it ends after {end!r}")


def blank_parts(base: str, dtype: torch.dtype, options: Mapping[str, Any], vae: str = "") -> dict[str, Any]:
    """Returns the parts of a pipeline that a model's configuration files describe: no weights are read, no words known.

    Args:
        base: a diffusers folder or hub id.
        dtype: of the parts.
        options: of `load_config` (local_files_only, ...).
        vae: a folder or hub id of an autoencoder to use in place of the base model's.
    """
    index = sources.component_config(diffusers.DiffusionPipeline, base, **options)
    named = {name: entry for name, entry in index.items() if isinstance(entry, list | tuple) and entry[0] is not None}
    with default_dtype(dtype):
        parts = {name: _blank_part(base, name, library, kind, options) for name, (library, kind) in named.items()}
        return parts | ({"vae": checkpoints.blank_autoencoder(vae, base, options)} if vae else {})


def _blank_part(base: str, name: str, library: str, kind_name: str, options: Mapping[str, Any]) -> Any:
    kind = getattr(import_module(library), kind_name)
    if issubclass(kind, diffusers.SchedulerMixin):
        return sources.component_scheduler(kind, (base, name), **options)
    if not issubclass(kind, nn.Module):
        return None  # a tokenizer
    if library == "diffusers":
        return kind.from_config(sources.component_config(kind, (base, name), **options))
    repository, revision = sources.pinned(base)
    return kind(AutoConfig.from_pretrained(repository, subfolder=name, **revision, **options))

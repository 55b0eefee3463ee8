"""Base of the flow-matching transformer families: prompts, control latents, guidance and the calls of the networks."""

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
from synccontrol.families.base import AbstractFamily, Crops, PromptEmbeds, WindowCondition, control_scales
from synccontrol.families.checkpoints import default_dtype
from synccontrol.families.unet_base import EMBEDDING_BUDGET, ControlEmbeddings
from synccontrol.sampling.batching import Note
from synccontrol.sampling.loop import Predict
from synccontrol.sampling.noise_level import NoiseLevel
from synccontrol.spec.settings import Geometry, SamplingConfig

PATCH = 2  # latent cells along one side of a token


@dataclasses.dataclass(frozen=True, kw_only=True)
class Control:
    """The input of a ControlNet in one call."""

    latents: Tensor  # (k, c, h, w), of the windows' crops of the control map
    scale: float


# windows (k, c, h, w), noise level, captions (tokens, features) of each guidance side, one a window -> eps - x0 of each
Velocities = Callable[[Tensor, NoiseLevel, Sequence[Sequence[Tensor]], Control | None], Sequence[Tensor]]
GuidanceRule = Callable[[Tensor, Tensor, float], Tensor]  # conditional, unconditional, guidance scale -> guided


def apply_guidance(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Return the guided prediction (classifier-free guidance, arXiv 2207.12598); scale 1: no guidance."""
    return conditional + (scale - 1) * (conditional - unconditional)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowPredict:
    """The prediction function of one image; implements `Predict`."""

    velocities: Velocities
    guide: GuidanceRule
    captions: Sequence[Sequence[Tensor]]  # per view: conditional, and with guidance unconditional
    embeddings: ControlEmbeddings | None  # control latents
    windows: Sequence[int]  # of each view
    sampling: SamplingConfig
    steps: int
    dtype: torch.dtype  # of the networks

    def __call__(self, z: Tensor, level: NoiseLevel, views: Sequence[int]) -> Tensor:
        side_captions = self.captions if self.sampling.guided(level.index, self.steps) else self.captions[:1]
        captions = [[by_view[view] for view in views] for by_view in side_captions]
        predictions = self.velocities(z.to(self.dtype), level, captions, self._control(level, views))
        velocities = [velocity.to(z.dtype) for velocity in predictions]
        if len(velocities) == 1:
            return velocities[0]
        conditional, unconditional = velocities
        return self.guide(conditional, unconditional, self.sampling.guidance_scale)

    def _control(self, level: NoiseLevel, views: Sequence[int]) -> Control | None:
        if self.embeddings is None:
            return None
        (scale,) = control_scales(self.sampling, level.index, self.steps, 1)
        return Control(latents=self.embeddings([self.windows[view] for view in views]), scale=scale) if scale else None


class AbstractFlowFamily(AbstractFamily):
    """A loaded pipeline with a flow-matching transformer and at most one ControlNet.

    Args:
        pipe: the diffusers pipeline.
        geometry: its native sizes.
        controls: the control type of its map, which the ControlNet does not need.
        guide: guidance rule for the predictions.

    Raises:
        ModelError: a window is not a whole number of patches.
        ConfigError: there are several controls, or one without a ControlNet.
    """

    def __init__(
        self, pipe: Any, geometry: Geometry, controls: Sequence[str] = (), guide: GuidanceRule = apply_guidance
    ) -> None:
        if any(side < PATCH or side % PATCH for side in geometry.window):
            h, w = geometry.window
            raise ModelError(
                f"windows of {w}x{h} cells cannot be cut into patches of {PATCH}x{PATCH}, as this model sees them; "
                "choose a model whose native size is a multiple of that"
            )
        self.pipe = pipe
        self.geometry = geometry
        self._guide = guide
        self._controlnet: Any = getattr(pipe, "controlnet", None)
        self.controls = int(self._controlnet is not None)
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
        # The pipelines' linear rule for a whole image; for the model every window is a whole image.
        h, w = self.geometry.window
        min_tokens, max_tokens = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        base_shift, max_shift = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
        return float(
            base_shift + (h * w // PATCH**2 - min_tokens) * (max_shift - base_shift) / (max_tokens - min_tokens)
        )

    @torch.no_grad()
    def condition(
        self, views: Sequence[WindowCondition], crops: Sequence[Crops], sampling: SamplingConfig, steps: int, note: Note
    ) -> Predict:
        if any(view.reference is not None for view in views):
            raise ConfigError("this model takes no IP-Adapter; leave ip_image out")
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
        captions = [self._encode_captions(side_prompts, note) for side_prompts in prompts]
        embeddings = ControlEmbeddings(self._encode_control, crops[0], EMBEDDING_BUDGET) if crops else None
        if embeddings is not None and self.offloaded:
            for window in windows:  # the autoencoder comes to the device once, not between two calls of the transformer
                embeddings([window])
        return FlowPredict(
            velocities=self._predict_velocities,
            guide=self._guide,
            captions=captions,
            embeddings=embeddings,
            windows=windows,
            sampling=sampling,
            steps=steps,
            dtype=self.dtype,
        )

    def _encode_captions(self, prompts: Sequence[str | PromptEmbeds], note: Note) -> list[Tensor]:
        """Return the states (tokens, features) of prompts; equal prompts share them."""
        states = {prompt: self._encode_caption(prompt, note) for prompt in dict.fromkeys(prompts)}
        return [states[prompt] for prompt in prompts]

    def _encode_caption(self, prompt: str | PromptEmbeds, note: Note) -> Tensor:
        states: Tensor = (
            self._prompt_cache(prompt, partial(self._encode, prompt), note) if isinstance(prompt, str) else prompt[0][0]
        )
        return states.to(device=self.device, dtype=self.dtype)

    def _encode_control(self, crops: Tensor) -> Tensor:
        """Return the control latents (k, c, h, w) of crops of a control map, (k, 3, H, W) in 0..1."""
        images = (2 * crops - 1).to(device=self.device, dtype=self.pipe.vae.dtype)
        return self._encode_images(images).to(self.dtype)

    @abc.abstractmethod
    def _encode(self, prompt: str, note: Note) -> Tensor:
        """Return the states (tokens, features) of one prompt."""

    def encode(self, images: Tensor) -> Tensor:
        return self._encode_images(images.to(device=self.device, dtype=self.pipe.vae.dtype)).to(images.dtype)

    @abc.abstractmethod
    def _encode_images(self, images: Tensor) -> Tensor:
        """Return the latents (k, c, h, w) of images (k, 3, H, W) in -1..1: the mode, which is deterministic."""

    @abc.abstractmethod
    def _predict_velocities(
        self, z: Tensor, level: NoiseLevel, captions: Sequence[Sequence[Tensor]], control: Control | None
    ) -> Sequence[Tensor]:
        """Return the predictions eps - x0 of windows z (k, c, h, w), for each guidance side.

        Implements `Velocities`.
        """


def single_controlnet(controlnets: Sequence[Any], model: str) -> Any:
    """Return the only ControlNet of a list. Raise `ModelError` if there are more."""
    if len(controlnets) > 1:
        raise ModelError(
            f"{model} takes one ControlNet, and {len(controlnets)} are named; name the one that matters most"
        )
    return controlnets[0]


def note_truncated_prompt(tokenizer: Any, text: str, longest: int, note: Note) -> None:
    """Note that a text has more tokens than the model reads."""
    ids = tokenizer(text, verbose=False).input_ids
    if len(ids) > longest:
        end = tokenizer.decode(ids[longest - 4 : longest])
        note(f"the prompt has {len(ids)} tokens, of which the model reads {longest}: it ends after {end!r}")


def blank_parts(base: str, dtype: torch.dtype, options: Mapping[str, Any], vae: str = "") -> dict[str, Any]:
    """Return the components of a pipeline built from configuration files, without weights or tokenizers.

    Args:
        base: a diffusers folder or hub id.
        dtype: dtype of the components.
        options: options of `load_config` (local_files_only, ...).
        vae: a folder or hub id of an autoencoder that replaces the base model's.
    """
    index = checkpoints.component_config(diffusers.DiffusionPipeline, base, **options)
    components = {
        name: entry for name, entry in index.items() if isinstance(entry, list | tuple) and entry[0] is not None
    }
    with default_dtype(dtype):
        parts = {name: _blank_part(base, name, library, kind, options) for name, (library, kind) in components.items()}
        return parts | ({"vae": checkpoints.blank_autoencoder(vae, base, options)} if vae else {})


def _blank_part(base: str, name: str, library: str, class_name: str, options: Mapping[str, Any]) -> Any:
    component_class = getattr(import_module(library), class_name)
    if issubclass(component_class, diffusers.SchedulerMixin):
        return checkpoints.component_scheduler(component_class, (base, name), **options)
    if not issubclass(component_class, nn.Module):
        return None  # a tokenizer
    if library == "diffusers":
        return component_class.from_config(checkpoints.component_config(component_class, (base, name), **options))
    repository, revision = checkpoints.split_revision(base)
    return component_class(AutoConfig.from_pretrained(repository, subfolder=name, **revision, **options))

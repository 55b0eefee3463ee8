"""The ground of families with a UNet: ControlNets, UNet and guidance, called in one place."""

import abc
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from synccontrol.errors import ConfigError, ModelError
from synccontrol.families import checkpoints, ip_adapter, prompt_weights
from synccontrol.families.base import AbstractFamily, Crops, Encoded, View, control_scales
from synccontrol.families.prompt_encoding import Asked, Prompts, Text, encoded
from synccontrol.families.prompt_weights import Reader
from synccontrol.preprocess.hub import silent
from synccontrol.sampling.batching import Note
from synccontrol.sampling.loop import Predict
from synccontrol.sampling.noise_level import Level
from synccontrol.spec.settings import Geometry, SamplingConfig

EMBEDDING_BUDGET = 2**28  # bytes of control embeddings that a picture keeps on the device


class Hints:
    """A ControlNet's embeddings of what windows see of its map, which no timestep changes.

    Made when they are first needed, and kept as long as the budget lasts; the rest is made again at every step.

    Args:
        embed: crops (1, 3, H, W) in 0..1 to embeddings (1, c, h, w).
        crops: what windows see of the control map.
        budget: bytes to keep.
    """

    def __init__(self, embed: Callable[[Tensor], Tensor], crops: Crops, budget: int) -> None:
        self._embed = embed
        self._crops = crops
        self._left = budget
        self._kept: dict[int, Tensor] = {}

    @torch.no_grad()
    def __call__(self, windows: Sequence[int]) -> Tensor:
        """Returns the embeddings (k, c, h, w) of windows."""
        return torch.cat([self._kept[j] if j in self._kept else self._made(j) for j in windows])

    def _made(self, window: int) -> Tensor:
        # One at a time: rounding must not depend on the batch.
        embedding = self._embed(self._crops([window]))
        if embedding.nbytes <= self._left:
            self._left -= embedding.nbytes
            self._kept[window] = embedding
        return embedding


@dataclasses.dataclass(frozen=True, kw_only=True)
class Control:
    """A ControlNet, and what it follows: one map, or any number of them if it is a union."""

    net: Any
    hints: Sequence[Hints]  # one per map
    types: Sequence[int] = ()  # of a union: what each map shows, by the union's own numbers

    def residuals(
        self, z: Tensor, level: Level, text: Text, windows: Sequence[int], scales: Sequence[float], guess: bool
    ) -> tuple[list[Tensor], Tensor]:
        """Returns what it adds to the UNet's down blocks and to its middle block.

        Args:
            z: the windows (k, c, h, w), or all of them twice.
            level: their level.
            text: what they are told.
            windows: their indices (k).
            scales: how strong each map is.
            guess: whether deep residuals count more than shallow ones.
        """
        seen = [torch.cat([hints(windows)] * (len(z) // len(windows))) for hints in self.hints]
        options: dict[str, Any] = {"guess_mode": guess, "return_dict": False}
        if not self.types:
            options |= {"controlnet_cond": seen[0], "conditioning_scale": scales[0], **text.options()}
            down, mid = self.net(z, level.t, **options)
            return down, mid
        # The attention in a union goes across its batch: every window is alone there, as a picture in its pipeline is.
        parts = []
        for rows in (range(first, len(z), len(windows)) for first in range(len(windows))):
            options |= self._shown(z[rows], scales) | text[rows].options()
            parts.append(self.net(z[rows], level.t, controlnet_cond=[one[rows] for one in seen], **options))
        down = [torch.stack(blocks, dim=1).flatten(0, 1) for blocks in zip(*(down for down, _ in parts), strict=True)]
        return down, torch.stack([mid for _, mid in parts], dim=1).flatten(0, 1)

    def _shown(self, z: Tensor, scales: Sequence[float]) -> dict[str, Any]:
        """Returns what a union is told of its maps."""
        types = torch.zeros(self.net.config.num_control_type, dtype=z.dtype, device=z.device)
        types[list(self.types)] = 1
        return {
            "control_type": types.expand(len(z), -1),
            "control_type_idx": list(self.types),
            "conditioning_scale": list(scales),
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNetPredict:
    """The prediction of views for one picture. It is a `Predict`."""

    unet: Any
    controls: Sequence[Control]
    windows: Sequence[int]  # of each view
    prompts: Sequence[Prompts]  # unconditional and conditional; the latter alone without guidance
    timestep_cond: Tensor | None  # (1, c): the guidance scale, of models that were distilled to take it as an input
    beside: Tensor | None  # (n, c, h, w), what of each view the UNet alone sees beside its latents
    sampling: SamplingConfig
    steps: int

    def __call__(self, z: Tensor, level: Level, views: Sequence[int]) -> Tensor:
        heard = self.prompts if self.sampling.guided(level.index, self.steps) else self.prompts[-1:]
        texts = [prompts(views) for prompts in heard]
        inputs = torch.cat([z.to(self.unet.dtype)] * len(texts))
        down, mid = self._control(inputs, texts, level, [self.windows[view] for view in views])
        timestep_cond = self.timestep_cond.expand(len(inputs), -1) if self.timestep_cond is not None else None
        if self.beside is not None:
            inputs = torch.cat([inputs, self.beside[list(views)].repeat(len(texts), 1, 1, 1)], dim=1)
        prediction: Tensor = self.unet(
            inputs,
            level.t,
            timestep_cond=timestep_cond,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
            return_dict=False,
            **Text.joined(texts).options(),
        )[0]
        prediction = prediction.to(z.dtype)
        if len(texts) == 1:
            return prediction
        unconditional, conditional = prediction.chunk(2)
        guided = unconditional + self.sampling.guidance_scale * (conditional - unconditional)
        rescale = self.sampling.guidance_rescale
        return rescale_noise_cfg(guided, conditional, rescale) if rescale else guided  # of every window by itself

    def _control(
        self, z: Tensor, texts: Sequence[Text], level: Level, windows: Sequence[int]
    ) -> tuple[list[Tensor] | None, Tensor | None]:
        """Returns the sum of the ControlNets' residuals for the UNet's down blocks and its middle block."""
        maps = sum(len(control.hints) for control in self.controls)
        scales = iter(control_scales(self.sampling, level.index, self.steps, maps) if maps else ())
        down: list[Tensor] | None = None
        mid: Tensor | None = None
        for control in self.controls:
            own = [next(scales) for _ in control.hints]
            if own == [0]:  # in a union the scales of several maps act inside: at 0 it still adds what it makes of z
                continue
            net_down, net_mid = self._residuals(control, z, texts, level, windows, own)
            down = net_down if down is None else [a + b for a, b in zip(down, net_down, strict=True)]
            mid = net_mid if mid is None else mid + net_mid
        return down, mid

    def _residuals(
        self,
        control: Control,
        z: Tensor,
        texts: Sequence[Text],
        level: Level,
        windows: Sequence[int],
        scales: Sequence[float],
    ) -> tuple[list[Tensor], Tensor]:
        guess = self.sampling.guess_mode or control.net.config.global_pool_conditions
        if not guess or len(texts) == 1:
            return control.residuals(z, level, Text.joined(texts), windows, scales, guess)
        down, mid = control.residuals(z.chunk(2)[1], level, texts[1], windows, scales, guess)
        # the unprompted half is left uncontrolled
        return [torch.cat([torch.zeros_like(d), d]) for d in down], torch.cat([torch.zeros_like(mid), mid])


class AbstractUNetFamily(AbstractFamily):
    """A loaded pipeline with a UNet.

    Args:
        pipe: the pipeline.
        controls: the control type of each map; only union ControlNets must be told.

    Raises:
        ModelError: its UNet is not a text-to-image one.
        ConfigError: the number of controls is not that of the ControlNets.
    """

    def __init__(self, pipe: Any, controls: Sequence[str] = ()) -> None:
        config, channels = pipe.unet.config, pipe.vae.config.latent_channels
        self.inpaints = config.in_channels == 2 * channels + 1  # beside the latents, a mask and what is kept
        if config.out_channels != channels or not (self.inpaints or config.in_channels == channels):
            raise ModelError(
                f"the UNet takes {config.in_channels} channels, so it is no model for text or repainting; "
                "choose one that is"
            )
        self.pipe = pipe
        self.geometry: Geometry = checkpoints.geometry_of(config, pipe.vae.config)
        controlnet = getattr(pipe, "controlnet", None)
        self._nets: list[Any] = list(getattr(controlnet, "nets", [controlnet] if controlnet is not None else []))
        self._types = self._control_types(controls)
        self.controls = sum(len(types) for types in self._types)

    def _control_types(self, controls: Sequence[str]) -> list[Sequence[int | None]]:
        """Returns what the maps of each ControlNet show: by numbers of its own if it is a union, else [None]."""
        if controls and len(controls) != len(self._nets):
            raise ConfigError(
                f"{len(controls)} controls are named for {len(self._nets)} ControlNets; name one for each"
            )
        return [[None] for _ in self._nets]

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.pipe.unet.dtype
        return dtype

    def _modules(self) -> list[nn.Module]:
        return [*super()._modules(), *self._nets]

    @contextmanager
    def _prepared(self) -> Iterator[None]:
        nets = [net for net in dict.fromkeys(self._nets) if not isinstance(net.controlnet_cond_embedding, _Ready)]
        for net in nets:
            net.controlnet_cond_embedding = _Ready(net.controlnet_cond_embedding)
        try:
            yield
        finally:
            for net in nets:
                net.controlnet_cond_embedding = net.controlnet_cond_embedding.original

    @torch.no_grad()
    def condition(
        self, views: Sequence[View], crops: Sequence[Crops], sampling: SamplingConfig, steps: int, note: Note
    ) -> Predict:
        unet = self.pipe.unet
        # Models distilled to take the guidance as an input (LCM) are not guided a second time.
        distilled = unet.config.time_cond_proj_dim is not None
        sides = [([(view.prompt, view.reference) for view in views], partial(self._positive, sampling, note))]
        if sampling.guidance_scale > 1 and not distilled:
            sides.append(([(view.negative_prompt, view.reference) for view in views], partial(self._negative, note)))
        else:
            _note_unguided(views, sampling, note)
        timestep_cond = None
        if distilled:
            scale = torch.tensor([sampling.guidance_scale - 1])
            embedding = StableDiffusionPipeline.get_guidance_scale_embedding(
                self.pipe, scale, unet.config.time_cond_proj_dim
            )
            timestep_cond = embedding.to(device=self.device, dtype=self.dtype)
        beside = self._beside(views, note).to(unet.dtype) if self.inpaints else None
        return UNetPredict(
            unet=unet,
            controls=self._controls(crops) if crops else [],
            windows=[view.window for view in views],
            prompts=encoded(sides, lambda: self._text("", note=note).states)[::-1],
            timestep_cond=timestep_cond,
            beside=beside,
            sampling=sampling,
            steps=steps,
        )

    def _beside(self, views: Sequence[View], note: Note) -> Tensor:
        """Returns what the UNet sees beside the latents of views: where nothing says what is kept, all are new."""
        if all(view.beside is not None for view in views):
            return torch.cat([view.beside for view in views if view.beside is not None])
        note("the model is made for repainting, and no mask says what is kept: all is drawn anew")
        picture = torch.zeros(1, 3, *self.geometry.window_px, device=self.device, dtype=self.canvas_dtype)
        blank = self.beside(picture, torch.ones_like(picture[:, :1]))
        return torch.cat([blank if view.beside is None else view.beside for view in views])

    def _controls(self, crops: Sequence[Crops]) -> list[Control]:
        budget, rest, controls = EMBEDDING_BUDGET // len(crops), iter(crops), []
        for net, types in zip(self._nets, self._types, strict=True):
            hints = [Hints(partial(self._embed, net), next(rest), budget) for _ in types]
            controls.append(Control(net=net, hints=hints, types=[number for number in types if number is not None]))
        return controls

    @abc.abstractmethod
    def _readers(self) -> list[Reader]:
        """Returns the text encoders."""

    @abc.abstractmethod
    def _stock(self, prompt: str) -> Encoded:
        """Returns what the pipeline makes of a prompt without weights, cut where its text encoders end."""

    @abc.abstractmethod
    def _told(self, encoded: Encoded) -> Text:
        """Returns what the networks are told of an encoded prompt."""

    def _text(self, prompt: str | Encoded, clip_skip: int = 0, *, note: Note) -> Text:
        """Returns what the networks are told of a prompt."""
        if not isinstance(prompt, str):
            return self._told(prompt)
        found: Text = self._read_once((prompt, clip_skip), partial(self._read, prompt, clip_skip), note)
        return found

    def _read(self, prompt: str, clip_skip: int, note: Note) -> Text:
        readers = self._readers()
        self._check_clip_skip(readers, clip_skip)
        said = prompt_weights.phrases(prompt)
        prompt_weights.note_unknown(prompt_weights.plain(said), readers[0].tokenizer, note)
        with silent():  # what is longer than an encoder reads at once is noted
            states, *pooled = self._stock(prompt_weights.plain(said))
            convert = self.pipe.maybe_convert_prompt
            parts = prompt_weights.read(said, readers, convert, clip_skip, self.device, note)
        return self._told((states if parts is None else parts, *pooled))

    def _check_clip_skip(self, readers: Sequence[Reader], clip_skip: int) -> None:
        """Raises errors where there is no text encoder, or none with so many layers to leave out."""
        if any(one.encoder is None or one.tokenizer is None for one in readers):
            raise ModelError(
                "the pipeline has no text encoder; give prompt_embeds and negative_prompt_embeds, or a whole pipeline"
            )
        most = min(one.layers for one in readers)
        if clip_skip > most:
            raise ConfigError(f"clip skip is {clip_skip}; this model's text encoders have {most} layers to leave out")

    def _positive(self, sampling: SamplingConfig, note: Note, asked: Asked) -> Text:
        prompt, reference = asked
        shown = ip_adapter.shown(self.pipe, reference, self.device, self.dtype)
        return replace(self._text(prompt, sampling.clip_skip, note=note), references=shown)

    def _negative(self, note: Note, asked: Asked) -> Text:
        prompt, reference = asked
        text = self._unsaid(prompt, self._text(prompt, note=note))  # read by all layers, as in diffusers
        return replace(text, references=ip_adapter.shown(self.pipe, reference, self.device, self.dtype, negative=True))

    def _unsaid(self, prompt: str | Encoded, text: Text) -> Text:
        """Returns what the networks are told of a negative prompt, of which a text was made."""
        return text

    def _embed(self, net: Any, crops: Tensor) -> Tensor:
        """Returns a ControlNet's embedding of crops (k, 3, H, W) of its control map."""
        embedder = net.controlnet_cond_embedding.original
        if "_hf_hook" in vars(net):  # accelerate's, which brings an offloaded network to its device
            net._hf_hook.pre_forward(net)
        crops = crops.to(device=self.device, dtype=net.dtype)
        if net.config.controlnet_conditioning_channel_order == "bgr":
            crops = crops.flip(1)
        embedding: Tensor = embedder(crops)
        return embedding.to(self.device)

    def _unscaled(self, x0: Tensor) -> Tensor:
        """Returns clean latents as the autoencoder takes them."""
        unscaled: Tensor = x0 / self.pipe.vae.config.scaling_factor
        return unscaled

    def _scaled(self, latents: Tensor) -> Tensor:
        """Returns latents of the autoencoder as the networks take them: the inverse of `_unscaled`."""
        scaled: Tensor = latents * self.pipe.vae.config.scaling_factor
        return scaled

    def encode(self, pictures: Tensor) -> Tensor:
        vae = self.pipe.vae
        found: Tensor = vae.encode(pictures.to(device=self.device, dtype=vae.dtype)).latent_dist.mode()
        return self._scaled(found.to(pictures.dtype))

    def beside(self, pictures: Tensor, new: Tensor) -> Tensor:
        cells = max_pool2d(new, self.geometry.cell)  # of which any pixel is new
        kept = self.encode(pictures * (1 - new))  # what is new is grey, as in diffusers
        return torch.cat([cells.to(kept), kept], dim=1)

    def decode(self, x0: Tensor) -> Tensor:
        vae = self.pipe.vae
        latents = self._unscaled(x0).to(device=self.device, dtype=vae.dtype)
        pictures: Tensor = vae.decode(latents, return_dict=False)[0]
        return pictures.to(x0.dtype)


def _note_unguided(views: Sequence[View], sampling: SamplingConfig, note: Note) -> None:
    """Notes what does nothing where there is no guidance."""
    for name, given in (
        ("the negative prompt", any(view.negative_prompt != "" for view in views)),
        ("guidance rescale", sampling.guidance_rescale > 0),
    ):
        if given:
            note(f"{name} does nothing: there is no guidance (guidance scale 1, or a distilled model)")


class _Ready(nn.Module):
    """Stands, for a session, where a ControlNet embeds its control map: `Hints` are embedded already."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.original = original

    def forward(self, embedding: Tensor) -> Tensor:
        return embedding

"""What families with a UNet have in common: an autoencoder, and any number of ControlNets or none."""

import abc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from preprocess.silence import silent
from synccontrol.config import Geometry, SamplingConfig
from synccontrol.errors import ConfigError, ModelError
from synccontrol.families import checkpoints, prompts, references
from synccontrol.families.base import AbstractFamily, Crops, Encoded, View
from synccontrol.families.prompts import Reader
from synccontrol.families.text import Asked, Text, encoded
from synccontrol.families.unet import EMBEDDING_BUDGET, Control, Hints, UNetPredict
from synccontrol.sampling.batches import Note
from synccontrol.sampling.loop import Predict


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
        said = prompts.phrases(prompt)
        prompts.note_unknown(prompts.plain(said), readers[0].tokenizer, note)
        with silent():  # what is longer than an encoder reads at once is noted
            states, *pooled = self._stock(prompts.plain(said))
            convert = self.pipe.maybe_convert_prompt
            parts = prompts.read(said, readers, convert, clip_skip, self.device, note)
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
        shown = references.shown(self.pipe, reference, self.device, self.dtype)
        return replace(self._text(prompt, sampling.clip_skip, note=note), references=shown)

    def _negative(self, note: Note, asked: Asked) -> Text:
        prompt, reference = asked
        text = self._unsaid(prompt, self._text(prompt, note=note))  # read by all layers, as in diffusers
        return replace(text, references=references.shown(self.pipe, reference, self.device, self.dtype, negative=True))

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

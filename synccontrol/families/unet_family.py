"""What families with a UNet have in common: an autoencoder, and any number of ControlNets or none."""

import abc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import torch
from PIL import Image
from torch import Tensor, nn

from preprocess.silence import silent
from synccontrol.config import Geometry, SamplingConfig
from synccontrol.errors import ConfigError, ModelError
from synccontrol.families import checkpoints, prompts, references
from synccontrol.families.base import AbstractFamily, Crops, Encoded, View
from synccontrol.families.prompts import Reader
from synccontrol.families.unet import EMBEDDING_BUDGET, Control, Hints, Prompts, Text, UNetPredict
from synccontrol.sampling.batches import Note
from synccontrol.sampling.loop import Predict

Asked: TypeAlias = tuple[str | Encoded, Image.Image | None]  # a prompt, and what an IP-Adapter is shown


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
        config = pipe.unet.config
        channels = config.in_channels
        if channels != config.out_channels or channels != pipe.vae.config.latent_channels:
            raise ModelError(f"the UNet takes {channels} channels, so it is no text-to-image model; choose one that is")
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
            embedding = self.pipe.get_guidance_scale_embedding(scale, unet.config.time_cond_proj_dim)
            timestep_cond = embedding.to(device=self.device, dtype=self.dtype)
        return UNetPredict(
            unet=unet,
            controls=self._controls(crops) if crops else [],
            windows=[view.window for view in views],
            prompts=_prompts(sides, lambda: self._text("", note=note).states)[::-1],
            timestep_cond=timestep_cond,
            sampling=sampling,
            steps=steps,
        )

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

    def decode(self, x0: Tensor) -> Tensor:
        vae = self.pipe.vae
        latents = self._unscaled(x0).to(device=self.device, dtype=vae.dtype)
        pictures: Tensor = vae.decode(latents, return_dict=False)[0]
        return pictures.to(x0.dtype)


def _prompts(
    sides: Sequence[tuple[Sequence[Asked], Callable[[Asked], Text]]], empty: Callable[[], Tensor]
) -> list[Prompts]:
    """Returns encoded prompts, each of which is encoded once; all are as long as the longest.

    Args:
        sides: of the guidance: what is asked for in every view, and how it is encoded.
        empty: the states of an empty prompt, which shorter prompts are filled up with.

    Raises:
        ConfigError: one cannot be filled up to the length of the others.
    """
    asked = [{_key(one): one for one in of_views} for of_views, _ in sides]
    texts = [{key: read(one) for key, one in of_side.items()} for of_side, (_, read) in zip(asked, sides, strict=True)]
    lengths = {text.states.shape[1] for side in texts for text in side.values()}
    if len(lengths) > 1:
        filler = empty()
        if any((max(lengths) - length) % filler.shape[1] for length in lengths):
            raise ConfigError(
                f"prompts are {', '.join(map(str, sorted(lengths)))} tokens long, and differ by no multiple of "
                f"{filler.shape[1]}; give all embeddings in one length"
            )
        texts = [{key: text.lengthened(max(lengths), filler) for key, text in side.items()} for side in texts]
    return [
        Prompts(table=Text.joined(list(side.values())), rows=[list(side).index(_key(one)) for one in of_views])
        for side, (of_views, _) in zip(texts, sides, strict=True)
    ]


def _key(asked: Asked) -> tuple[str | Encoded, int]:
    prompt, reference = asked
    return prompt, id(reference)  # pictures have no hash


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

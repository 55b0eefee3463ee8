"""What families with a UNet have in common: an autoencoder, and any number of ControlNets or none."""

import abc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from preprocess.silence import silent
from synccontrol.config import Geometry, SamplingConfig
from synccontrol.errors import ConfigError, ModelError
from synccontrol.families import checkpoints
from synccontrol.families.base import AbstractFamily, Crops, Encoded, View
from synccontrol.families.unet import EMBEDDING_BUDGET, Control, Hints, Prompts, Text, UNetPredict
from synccontrol.sampling.batches import Note
from synccontrol.sampling.loop import Predict


class AbstractUNetFamily(AbstractFamily):
    """A loaded pipeline with a UNet.

    Args:
        pipe: the pipeline.
        controls: the control type of each map; only union ControlNets must be told.

    Raises:
        ModelError: its UNet is not a text-to-image one, or an IP-Adapter is loaded.
        ConfigError: the number of controls is not that of the ControlNets.
    """

    def __init__(self, pipe: Any, controls: Sequence[str] = ()) -> None:
        config = pipe.unet.config
        channels = config.in_channels
        if channels != config.out_channels or channels != pipe.vae.config.latent_channels:
            raise ModelError(f"the UNet takes {channels} channels, so it is no text-to-image model; choose one that is")
        if config.get("encoder_hid_dim_type") == "ip_image_proj":
            raise ModelError("the pipeline has an IP-Adapter, which is not supported; call pipe.unload_ip_adapter()")
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
        prompts = [_shared([view.prompt for view in views], partial(self._text, note=note))]
        if sampling.guidance_scale > 1 and not distilled:
            negatives = [view.negative_prompt for view in views]
            prompts.insert(0, _shared(negatives, partial(self._negative_text, note=note)))
        elif any(view.negative_prompt != "" for view in views):
            note("the negative prompt does nothing: there is no guidance (guidance scale 1, or a distilled model)")
        timestep_cond = None
        if distilled:
            scale = torch.tensor([sampling.guidance_scale - 1])
            embedding = self.pipe.get_guidance_scale_embedding(scale, unet.config.time_cond_proj_dim)
            timestep_cond = embedding.to(device=self.device, dtype=self.dtype)
        return UNetPredict(
            unet=unet,
            controls=self._controls(crops) if crops else [],
            windows=[view.window for view in views],
            prompts=prompts,
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
    def _text(self, prompt: str | Encoded, note: Note) -> Text:
        """Returns what the networks are told of one prompt."""

    def _negative_text(self, prompt: str | Encoded, note: Note) -> Text:
        """Returns what the networks are told of one negative prompt."""
        return self._text(prompt, note)

    def _note_cut(self, prompt: str, tokenizer: Any, note: Note) -> None:
        """Notes where a prompt ends that is longer than its text encoder reads."""
        with silent():  # a word of textual inversion may be several tokens
            prompt = self.pipe.maybe_convert_prompt(prompt, tokenizer)
        tokens = len(tokenizer(prompt, verbose=False).input_ids)
        if tokens > tokenizer.model_max_length:
            ids = tokenizer(prompt, truncation=True, max_length=tokenizer.model_max_length).input_ids
            note(
                f"the prompt has {tokens} tokens, of which the model reads {tokenizer.model_max_length}: "
                f"it ends after {tokenizer.decode(ids[1:-1][-4:])!r}"
            )

    def _embed(self, net: Any, crops: Tensor) -> Tensor:
        """Returns a ControlNet's embedding of crops (k, 3, H, W) of its control map."""
        embedder = net.controlnet_cond_embedding.original
        crops = crops.to(device=self.device, dtype=next(embedder.parameters()).dtype)
        if net.config.controlnet_conditioning_channel_order == "bgr":
            crops = crops.flip(1)
        embedding: Tensor = embedder(crops)
        return embedding.to(self.device)

    def _unscaled(self, x0: Tensor) -> Tensor:
        """Returns clean latents as the autoencoder takes them."""
        unscaled: Tensor = x0 / self.pipe.vae.config.scaling_factor
        return unscaled

    def decode(self, x0: Tensor) -> Tensor:
        vae = self.pipe.vae
        latents = self._unscaled(x0).to(device=self.device, dtype=vae.dtype)
        pictures: Tensor = vae.decode(latents, return_dict=False)[0]
        return pictures.to(x0.dtype)


def _shared(prompts: Sequence[str | Encoded], text: Callable[[str | Encoded], Text]) -> Prompts:
    """Returns encoded prompts, each of which is encoded once."""
    rows = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
    return Prompts(table=Text.joined([text(prompt) for prompt in rows]), rows=[rows[prompt] for prompt in prompts])


class _Ready(nn.Module):
    """Stands, for a session, where a ControlNet embeds its control map: `Hints` are embedded already."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.original = original

    def forward(self, embedding: Tensor) -> Tensor:
        return embedding

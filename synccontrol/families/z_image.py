"""Z-Image and Z-Image-Turbo, with one Fun ControlNet or none.

`SamplingConfig.guidance_scale` means here what it means everywhere: w, with 1 for none. The diffusers pipelines of
Z-Image call w - 1 the guidance scale.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import AutoencoderKL, ZImageControlNetPipeline, ZImagePipeline
from torch import Tensor

from synccontrol.errors import ModelError
from synccontrol.families import checkpoints, flow_base, fun_controlnet
from synccontrol.families import checkpoints as sources
from synccontrol.families.base import Encoded
from synccontrol.families.checkpoints import Source
from synccontrol.families.flow_base import AbstractFlow, Control
from synccontrol.sampling.batching import Note
from synccontrol.sampling.noise_level import Level
from synccontrol.spec.settings import Geometry

PIPELINES = ("ZImagePipeline", "ZImageControlNetPipeline")
HALF = torch.bfloat16  # the dtype of 16 bits that its networks run in
NATIVE = 1024  # px, where the autoencoder does not say
FLAG = "gradient_checkpointing"  # of diffusers' networks
LONGEST = 512  # tokens of a prompt, with what the chat template puts around it


def load(base: str, controlnets: Sequence[Source], vae: str = "", **options: Any) -> Any:
    """Returns a diffusers pipeline.

    Args:
        base: a diffusers folder or hub id.
        controlnets: one or none: a folder, hub id or .safetensors file, or a pair of a folder or hub id and what is
            meant inside it.
        vae: a file, folder or hub id of an autoencoder to use in place of the base model's.
        options: of `from_pretrained` (dtype, local_files_only, ...).

    Raises:
        ModelError: there are several ControlNets.
        ValueError: a file holds no Z-Image ControlNet.
    """
    own = sources.reading(options)
    parts = {"vae": checkpoints.autoencoder(vae, base, **own)} if vae else {}
    if not controlnets:
        return sources.weights(ZImagePipeline, base, **parts, **options)
    parts["controlnet"] = fun_controlnet.load(base, flow_base.only(controlnets, "Z-Image"), **own)
    return sources.weights(ZImageControlNetPipeline, base, **parts, **options)


def geometry(base: str, **options: Any) -> Geometry:
    """Returns the native sizes that a model's configuration files state; options as those of `load`."""
    return _geometry(sources.component_config(AutoencoderKL, (base, "vae"), **options))


def blank(base: str, controlnets: Sequence[Source], dtype: torch.dtype, vae: str = "", **options: Any) -> Any:
    """Returns the pipeline that a model's configuration files describe: no weights are read, no words are known.

    Under a `FakeTensorMode` it takes no memory, so that its work can be rehearsed. Arguments as for `load`.
    """
    parts = flow_base.blank_parts(base, dtype, options, vae)
    if not controlnets:
        return ZImagePipeline(**parts)
    net = fun_controlnet.blank(base, flow_base.only(controlnets, "Z-Image"), dtype, **options)
    return ZImageControlNetPipeline(**parts, controlnet=net)


def _geometry(vae: Mapping[str, Any]) -> Geometry:
    cell = 2 ** (len(vae["block_out_channels"]) - 1)
    side = vae.get("sample_size", NATIVE) // cell
    return Geometry(window=(side, side), cell=cell, channels=vae["latent_channels"])


class Family(AbstractFlow):
    """A loaded Z-Image pipeline.

    Args:
        pipe: a `ZImagePipeline` or `ZImageControlNetPipeline`.
        controls: the control type of its map, which the ControlNet need not be told.

    Raises:
        ModelError: its transformer is no text-to-image one.
        ConfigError: there are several controls, or one without a ControlNet.
    """

    def __init__(self, pipe: Any, controls: Sequence[str] = ()) -> None:
        super().__init__(pipe, _geometry(pipe.vae.config), controls)
        channels = pipe.transformer.in_channels
        if channels != self.geometry.channels:
            raise ModelError(
                f"the transformer takes {channels} channels and the autoencoder has {self.geometry.channels}; "
                "choose an autoencoder that fits"
            )

    @contextmanager
    def _prepared(self) -> Iterator[None]:
        # The ControlNet asks for a flag that it never sets, whenever gradients are on (huggingface/diffusers#13267).
        net = self._net
        if net is None or FLAG in vars(net):
            yield
            return
        function = net._gradient_checkpointing_func
        setattr(net, FLAG, False)
        if self.pipe.transformer.is_gradient_checkpointing:
            net.enable_gradient_checkpointing()
        try:
            yield
        finally:
            delattr(net, FLAG)
            net._gradient_checkpointing_func = function

    def _encode(self, prompt: str, note: Note) -> Tensor:
        tokenizer = self.pipe.tokenizer
        asked = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=True
        )
        flow_base.note_cut(tokenizer, asked, LONGEST, note)
        (states,), _ = self.pipe.encode_prompt(
            prompt, self.device, do_classifier_free_guidance=False, max_sequence_length=LONGEST
        )
        found: Tensor = states
        return found

    def blank_prompt(self) -> Encoded:
        return (torch.zeros(1, LONGEST, self.pipe.transformer.config.cap_feat_dim),)

    def _latents(self, pictures: Tensor) -> Tensor:
        vae = self.pipe.vae
        latents: Tensor = (
            vae.encode(pictures).latent_dist.mode() - vae.config.shift_factor
        ) * vae.config.scaling_factor
        return latents

    def decode(self, x0: Tensor) -> Tensor:
        vae = self.pipe.vae
        latents = x0 / vae.config.scaling_factor + vae.config.shift_factor
        pictures: Tensor = vae.decode(latents.to(device=self.device, dtype=vae.dtype), return_dict=False)[0]
        return pictures.to(x0.dtype)

    def _velocities(
        self, z: Tensor, level: Level, captions: Sequence[Sequence[Tensor]], control: Control | None
    ) -> Sequence[Tensor]:
        kinds = len(captions)
        x = list(z.unsqueeze(2).repeat(kinds, 1, 1, 1, 1))  # every window is a picture of one frame
        t = torch.full((len(x),), level.t, device=z.device)
        t = (1000 - t) / 1000
        said = [caption for of_windows in captions for caption in of_windows]
        residuals = self._net(*self._context(x, t, said, control)) if control is not None else None
        found = self.pipe.transformer(x, t, said, return_dict=False, controlnet_block_samples=residuals)[0]
        return (-torch.stack(list(found)).squeeze(2)).chunk(kinds)

    def _context(self, x: list[Tensor], t: Tensor, said: list[Tensor], control: Control) -> tuple[Any, ...]:
        """Returns the arguments of the ControlNet."""
        latents = control.latents
        # Later nets also take a mask and a picture to paint over; there is neither.
        missing = self._net.config.control_in_dim - latents.shape[1]
        blank = latents.new_zeros(len(latents), missing, *latents.shape[2:])
        context = torch.cat([latents, blank], 1).unsqueeze(2)
        return x, t, said, list(context.repeat(len(x) // len(latents), 1, 1, 1, 1)), control.scale

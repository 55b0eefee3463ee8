"""Z-Image and Z-Image-Turbo with at most one Fun ControlNet.

`SamplingConfig.guidance_scale` has its usual meaning: w, with 1 for no guidance. The diffusers pipelines of Z-Image
call w - 1 the guidance scale.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import AutoencoderKL, ZImageControlNetPipeline, ZImagePipeline
from torch import Tensor

from synccontrol.errors import ModelError
from synccontrol.families import checkpoints, flow_base, fun_controlnet
from synccontrol.families.base import PromptEmbeds
from synccontrol.families.checkpoints import Source
from synccontrol.families.flow_base import AbstractFlowFamily, Control
from synccontrol.sampling.batching import Note
from synccontrol.sampling.noise_level import NoiseLevel
from synccontrol.spec.settings import Geometry

PIPELINES = ("ZImagePipeline", "ZImageControlNetPipeline")
HALF = torch.bfloat16  # 16-bit dtype of its networks
NATIVE_PX = 1024  # if the autoencoder's configuration has no sample size
CHECKPOINTING_FLAG = "gradient_checkpointing"  # of diffusers' networks
MAX_PROMPT_TOKENS = 512  # including the chat template


def load(base: str, controlnets: Sequence[Source], vae: str = "", **options: Any) -> Any:
    """Load a diffusers pipeline.

    Args:
        base: a diffusers folder or hub id.
        controlnets: at most one: a folder, hub id or .safetensors file, or a pair of a folder or hub id and a path
            inside it.
        vae: a file, folder or hub id of an autoencoder that replaces the base model's.
        options: of `from_pretrained` (dtype, local_files_only, ...).

    Raises:
        ModelError: there are several ControlNets.
        ValueError: a file is no Z-Image ControlNet.
    """
    shared = checkpoints.shared_options(options)
    components = {"vae": checkpoints.autoencoder(vae, base, **shared)} if vae else {}
    if not controlnets:
        return checkpoints.load_weights(ZImagePipeline, base, **components, **options)
    components["controlnet"] = fun_controlnet.load(base, flow_base.single_controlnet(controlnets, "Z-Image"), **shared)
    return checkpoints.load_weights(ZImageControlNetPipeline, base, **components, **options)


def geometry(base: str, **options: Any) -> Geometry:
    """Return the native sizes that a model's configuration files state; options are those of `load`."""
    return _geometry(checkpoints.component_config(AutoencoderKL, (base, "vae"), **options))


def blank(base: str, controlnets: Sequence[Source], dtype: torch.dtype, vae: str = "", **options: Any) -> Any:
    """Return the pipeline without weights or tokenizers, built from configuration files.

    Under a `FakeTensorMode` it takes no memory, which the memory estimate uses. Arguments are those of `load`.
    """
    parts = flow_base.blank_parts(base, dtype, options, vae)
    if not controlnets:
        return ZImagePipeline(**parts)
    net = fun_controlnet.blank(base, flow_base.single_controlnet(controlnets, "Z-Image"), dtype, **options)
    return ZImageControlNetPipeline(**parts, controlnet=net)


def _geometry(vae: Mapping[str, Any]) -> Geometry:
    cell = 2 ** (len(vae["block_out_channels"]) - 1)
    side = vae.get("sample_size", NATIVE_PX) // cell
    return Geometry(window=(side, side), cell=cell, channels=vae["latent_channels"])


class Family(AbstractFlowFamily):
    """A loaded Z-Image pipeline.

    Args:
        pipe: a `ZImagePipeline` or `ZImageControlNetPipeline`.
        controls: the control type of its map, which the ControlNet does not need.

    Raises:
        ModelError: the transformer's channels do not match the autoencoder's.
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
    def _prepare_networks(self) -> Iterator[None]:
        # With gradients on, the ControlNet reads a flag that it never sets (huggingface/diffusers#13267).
        net = self._controlnet
        if net is None or CHECKPOINTING_FLAG in vars(net):
            yield
            return
        function = net._gradient_checkpointing_func
        setattr(net, CHECKPOINTING_FLAG, False)
        if self.pipe.transformer.is_gradient_checkpointing:
            net.enable_gradient_checkpointing()
        try:
            yield
        finally:
            delattr(net, CHECKPOINTING_FLAG)
            net._gradient_checkpointing_func = function

    def _encode(self, prompt: str, note: Note) -> Tensor:
        tokenizer = self.pipe.tokenizer
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=True
        )
        flow_base.note_truncated_prompt(tokenizer, chat, MAX_PROMPT_TOKENS, note)
        (states,), _ = self.pipe.encode_prompt(
            prompt, self.device, do_classifier_free_guidance=False, max_sequence_length=MAX_PROMPT_TOKENS
        )
        caption_states: Tensor = states
        return caption_states

    def blank_prompt(self) -> PromptEmbeds:
        return (torch.zeros(1, MAX_PROMPT_TOKENS, self.pipe.transformer.config.cap_feat_dim),)

    def _encode_images(self, images: Tensor) -> Tensor:
        vae = self.pipe.vae
        latents: Tensor = (vae.encode(images).latent_dist.mode() - vae.config.shift_factor) * vae.config.scaling_factor
        return latents

    def decode(self, x0: Tensor) -> Tensor:
        vae = self.pipe.vae
        latents = x0 / vae.config.scaling_factor + vae.config.shift_factor
        images: Tensor = vae.decode(latents.to(device=self.device, dtype=vae.dtype), return_dict=False)[0]
        return images.to(x0.dtype)

    def _predict_velocities(
        self, z: Tensor, level: NoiseLevel, captions: Sequence[Sequence[Tensor]], control: Control | None
    ) -> Sequence[Tensor]:
        sides = len(captions)
        x = list(z.unsqueeze(2).repeat(sides, 1, 1, 1, 1))  # every window is a video of one frame
        t = torch.full((len(x),), level.t, device=z.device)
        t = (1000 - t) / 1000
        all_captions = [caption for of_windows in captions for caption in of_windows]
        residuals = (
            self._controlnet(*self._controlnet_inputs(x, t, all_captions, control)) if control is not None else None
        )
        velocities = self.pipe.transformer(x, t, all_captions, return_dict=False, controlnet_block_samples=residuals)[0]
        return (-torch.stack(list(velocities)).squeeze(2)).chunk(sides)

    def _controlnet_inputs(
        self, x: list[Tensor], t: Tensor, captions: list[Tensor], control: Control
    ) -> tuple[Any, ...]:
        """Return the arguments of the ControlNet."""
        latents = control.latents
        # Later nets also take a mask and an image to inpaint; both are blank here.
        missing_channels = self._controlnet.config.control_in_dim - latents.shape[1]
        blank = latents.new_zeros(len(latents), missing_channels, *latents.shape[2:])
        context = torch.cat([latents, blank], 1).unsqueeze(2)
        return x, t, captions, list(context.repeat(len(x) // len(latents), 1, 1, 1, 1)), control.scale

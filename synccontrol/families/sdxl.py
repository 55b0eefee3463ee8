"""Stable Diffusion XL with any number of ControlNets. A union ControlNet takes several control maps."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from diffusers import (
    ControlNetUnionModel,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLControlNetUnionPipeline,
    StableDiffusionXLPipeline,
)
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from synccontrol.errors import ConfigError, ModelError
from synccontrol.families import checkpoints
from synccontrol.families.base import PromptEmbeds
from synccontrol.families.prompt_encoding import TextConditioning
from synccontrol.families.prompt_weights import CLIP_TOKENS, ClipEncoder
from synccontrol.families.unet_base import AbstractUNetFamily
from synccontrol.spec.settings import Geometry

PIPELINES = (
    "StableDiffusionXLPipeline",
    "StableDiffusionXLControlNetPipeline",
    "StableDiffusionXLControlNetUnionPipeline",
    "StableDiffusionXLInpaintPipeline",
    "StableDiffusionXLControlNetInpaintPipeline",
    "StableDiffusionXLControlNetUnionInpaintPipeline",
)
HALF = torch.float16  # 16-bit dtype of its networks

TIME_IDS = 6  # height, width, top, left, height, width
UNION_TYPES = {  # control type -> its index in a union ControlNet (xinsir/controlnet-union-sdxl-1.0)
    "pose": 0,
    "depth": 1,
    "softedge": 2,
    "scribble": 2,
    "canny": 3,
    "lineart": 3,
    "mlsd": 3,
    "normal": 4,
    "segmentation": 5,
    "tile": 6,  # promax edition only, which has 8 types
    "inpaint": 7,  # likewise
}
BLACK = 0.0  # masked value of union ControlNets (diffusers' union inpainting pipeline)

_CLASSES = checkpoints.PipelineClasses(
    StableDiffusionXLPipeline,
    StableDiffusionXLControlNetPipeline,
    encoders={"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection},
    upcasts=True,
    union=StableDiffusionXLControlNetUnionPipeline,
)


def load(base: str, controlnets: Sequence[str | tuple[str, str]], **options: Any) -> Any:
    """Load a diffusers pipeline.

    Args:
        base: a diffusers folder or hub id.
        controlnets: one per control or one union for all, a folder or hub id, or a pair of it and a subfolder.
        options: of `from_pretrained` (dtype, local_files_only, ...).
    """
    return checkpoints.load(_CLASSES, base, controlnets, **options)


def geometry(base: str, **options: Any) -> Geometry:
    """Return the native sizes that a model's configuration files state; options are those of `load`."""
    return checkpoints.geometry(base, **options)


def blank(base: str, controlnets: Sequence[str | tuple[str, str]], dtype: torch.dtype, **options: Any) -> Any:
    """Return the pipeline without weights or tokenizers, built from configuration files.

    Under a `FakeTensorMode` it takes no memory, which the memory estimate uses. An autoencoder that decodes in float32
    is float32 from the start. Arguments are those of `load`.
    """
    parts = checkpoints.blank_parts(_CLASSES, base, controlnets, dtype, **options)
    return _CLASSES.for_controlnets(parts.get("controlnet", ()))(**parts, tokenizer=None, tokenizer_2=None)


class Family(AbstractUNetFamily):
    """A loaded Stable Diffusion XL pipeline.

    The size conditioning of every window describes a whole, uncropped image of the window's size. For models with
    `force_zeros_for_empty_prompt` (the published ones) an empty negative prompt becomes zeros, as in diffusers when no
    negative prompt is given. A space (`" "`) is an encoded empty text.

    A single union ControlNet takes all control maps at once and applies their scales inside, as its diffusers pipeline
    does. A union next to other ControlNets takes one map. A union needs the control types of its maps.

    A float16 autoencoder with `force_upcast` is float32 from the first decoding in a session to the session's end.

    Raises:
        ModelError: the model is a refiner, or a union ControlNet does not support a control type.
        ConfigError: the number of controls differs from the number of ControlNets, or a union lacks control types.
    """

    def __init__(self, pipe: Any, controls: Sequence[str] = ()) -> None:
        super().__init__(pipe, controls)
        config, encoder = pipe.unet.config, pipe.text_encoder_2
        if config.addition_embed_type != "text_time" or (
            encoder is not None and encoder.config.projection_dim != _pooled_features(config)
        ):
            raise ModelError("the UNet is not conditioned on a size and a prompt; choose a base model, not a refiner")

    def _control_types(self, controls: Sequence[str]) -> list[Sequence[int | None]]:
        are_unions = [isinstance(net, ControlNetUnionModel) for net in self._nets]
        if any(are_unions) and not controls:
            raise ConfigError(
                "the pipeline has a union ControlNet, which must be told what its control maps show; "
                "name their types: Montage.from_pipe(pipe, controls=['depth', 'canny'])"
            )
        if are_unions == [True]:
            return [[_union_type(self._nets[0], control) for control in controls]]
        types = super()._control_types(controls)
        for index, union in enumerate(are_unions):
            if union:
                types[index] = [_union_type(self._nets[index], controls[index])]
        return types

    def masked_value(self, control: int) -> float:
        is_union = [number is not None for types in self._types for number in types]
        return BLACK if is_union[control] else super().masked_value(control)

    @contextmanager
    def _prepare_networks(self) -> Iterator[None]:
        vae, dtype = self.pipe.vae, self.pipe.vae.dtype
        with super()._prepare_networks():
            try:
                yield
            finally:
                if vae.dtype != dtype:
                    vae.to(dtype=dtype)

    def _text_encoders(self) -> list[ClipEncoder]:
        pipe = self.pipe
        pairs = ((pipe.tokenizer, pipe.text_encoder), (pipe.tokenizer_2, pipe.text_encoder_2))
        return [ClipEncoder(tokenizer=tokenizer, encoder=encoder, has_final_norm=False) for tokenizer, encoder in pairs]

    def _pipeline_embeds(self, prompt: str) -> PromptEmbeds:
        states, _, pooled, _ = self.pipe.encode_prompt(prompt, device=self.device, do_classifier_free_guidance=False)
        return states, pooled

    def _conditioning(self, encoded: PromptEmbeds) -> TextConditioning:
        states, pooled = encoded
        height, width = self.geometry.window_px
        added = {"text_embeds": pooled, "time_ids": torch.tensor([[height, width, 0, 0, height, width]])}
        return TextConditioning(
            states=states.to(device=self.device, dtype=self.dtype),
            added={name: table.to(device=self.device, dtype=self.dtype) for name, table in added.items()},
        )

    def _negative_conditioning(self, prompt: str | PromptEmbeds, text: TextConditioning) -> TextConditioning:
        if prompt != "" or not self.pipe.config.force_zeros_for_empty_prompt:
            return text
        pooled = torch.zeros_like(text.added["text_embeds"])
        return replace(text, states=torch.zeros_like(text.states), added={**text.added, "text_embeds": pooled})

    def blank_prompt(self) -> PromptEmbeds:
        config, encoder = self.pipe.unet.config, self.pipe.text_encoder_2
        tokens = encoder.config.max_position_embeddings if encoder is not None else CLIP_TOKENS
        return torch.zeros(1, tokens, config.cross_attention_dim), torch.zeros(1, _pooled_features(config))

    def _to_vae_latents(self, x0: Tensor) -> Tensor:
        mean, std = self._statistics(x0)
        if mean is None or std is None:
            return super()._to_vae_latents(x0)
        unscaled: Tensor = x0 * std / self.pipe.vae.config.scaling_factor + mean
        return unscaled

    def _from_vae_latents(self, latents: Tensor) -> Tensor:
        mean, std = self._statistics(latents)
        if mean is None or std is None:
            return super()._from_vae_latents(latents)
        scaled: Tensor = (latents - mean) * self.pipe.vae.config.scaling_factor / std
        return scaled

    def _statistics(self, reference: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return mean and deviation (1, c, 1, 1) of the autoencoder's latents; None, None if they are unknown."""
        mean, std = self.pipe.vae.config.get("latents_mean"), self.pipe.vae.config.get("latents_std")
        if mean is None or std is None:
            return None, None
        return reference.new_tensor(mean).view(1, -1, 1, 1), reference.new_tensor(std).view(1, -1, 1, 1)

    def encode(self, images: Tensor) -> Tensor:
        self._upcast()
        return super().encode(images)

    def decode(self, x0: Tensor) -> Tensor:
        self._upcast()
        return super().decode(x0)

    def _upcast(self) -> None:
        vae = self.pipe.vae
        if vae.dtype == torch.float16 and vae.config.force_upcast:
            vae.to(dtype=torch.float32)  # in float16 it overflows


def _pooled_features(unet: Mapping[str, Any]) -> int:
    """Return the number of pooled text features, from a UNet's configuration."""
    input_size, time_id_size = unet["projection_class_embeddings_input_dim"], unet["addition_time_embed_dim"]
    return int(input_size - TIME_IDS * time_id_size)


def _union_type(net: Any, control: str) -> int:
    """Return a union ControlNet's index of a control type. Raise `ModelError` if it has none."""
    count = net.config.num_control_type
    supported = [name for name, number in UNION_TYPES.items() if number < count]
    if control not in supported:
        hint = f", and one of more types (promax) {control} too" if control in UNION_TYPES else ""
        raise ModelError(f"the union ControlNet does not follow {control!r}; it follows {', '.join(supported)}{hint}")
    return UNION_TYPES[control]

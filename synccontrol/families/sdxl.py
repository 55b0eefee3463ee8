"""Stable Diffusion XL, with any number of ControlNets or none; a union ControlNet follows several control maps."""

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
from synccontrol.families.base import Encoded
from synccontrol.families.prompt_encoding import Text
from synccontrol.families.prompt_weights import TOKENS, Reader
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
HALF = torch.float16  # the dtype of 16 bits that its networks run in

TIME_IDS = 6  # height, width, top, left, height, width
UNION_TYPES = {  # control types -> their number in a union ControlNet (xinsir/controlnet-union-sdxl-1.0)
    "pose": 0,
    "depth": 1,
    "softedge": 2,
    "scribble": 2,
    "canny": 3,
    "lineart": 3,
    "mlsd": 3,
    "normal": 4,
    "segmentation": 5,
    "tile": 6,  # of its promax edition, which has 8 types
    "inpaint": 7,  # likewise
}
BLACK = 0.0  # what unions are shown in place of what is drawn anew (diffusers' union inpainting pipeline)

_KINDS = checkpoints.Kinds(
    StableDiffusionXLPipeline,
    StableDiffusionXLControlNetPipeline,
    encoders={"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection},
    upcasts=True,
    union=StableDiffusionXLControlNetUnionPipeline,
)


def load(base: str, controlnets: Sequence[str | tuple[str, str]], **options: Any) -> Any:
    """Returns a diffusers pipeline.

    Args:
        base: a diffusers folder or hub id.
        controlnets: one per control or one union for all, a folder or hub id, or a pair of it and a subfolder.
        options: of `from_pretrained` (dtype, local_files_only, ...).
    """
    return checkpoints.load(_KINDS, base, controlnets, **options)


def geometry(base: str, **options: Any) -> Geometry:
    """Returns the native sizes that a model's configuration files state; options as those of `load`."""
    return checkpoints.geometry(base, **options)


def blank(base: str, controlnets: Sequence[str | tuple[str, str]], dtype: torch.dtype, **options: Any) -> Any:
    """Returns the pipeline that a model's configuration files describe: no weights are read, no words are known.

    Under a `FakeTensorMode` it takes no memory, so that its work can be rehearsed. An autoencoder that decodes in
    float32 is float32 from the start. Arguments as for `load`.
    """
    parts = checkpoints.blank_parts(_KINDS, base, controlnets, dtype, **options)
    return _KINDS.of(parts.get("controlnet", ()))(**parts, tokenizer=None, tokenizer_2=None)


class Family(AbstractUNetFamily):
    """A loaded Stable Diffusion XL pipeline.

    Every window is told that it is a whole picture of its own size, nothing cut off. An empty negative prompt is none,
    which for models with `force_zeros_for_empty_prompt` (the published ones) means zeros in place of an encoded text,
    as in the diffusers pipelines where no negative prompt is given; a space (`" "`) is an encoded empty text.

    A union ControlNet that stands alone follows all control maps at once, and their scales act inside it, as in its
    diffusers pipeline; one beside others follows one map. It must be told what its maps show.

    A float16 autoencoder with `force_upcast` is float32 from the first decoding in a session to the session's end.

    Raises:
        ModelError: it is a refiner, which draws no picture from the start, or a union does not follow a control type.
        ConfigError: the number of controls is not that of the ControlNets, or a union is not told control types.
    """

    def __init__(self, pipe: Any, controls: Sequence[str] = ()) -> None:
        super().__init__(pipe, controls)
        config, encoder = pipe.unet.config, pipe.text_encoder_2
        if config.addition_embed_type != "text_time" or (
            encoder is not None and encoder.config.projection_dim != _pooled(config)
        ):
            raise ModelError(
                "the UNet is told something else than a size and a prompt; choose a base model, no refiner"
            )

    def _control_types(self, controls: Sequence[str]) -> list[Sequence[int | None]]:
        unions = [isinstance(net, ControlNetUnionModel) for net in self._nets]
        if any(unions) and not controls:
            raise ConfigError(
                "the pipeline has a union ControlNet, which must be told what its control maps show; "
                "name their types: Montage.from_pipe(pipe, controls=['depth', 'canny'])"
            )
        if unions == [True]:
            return [[_number(self._nets[0], control) for control in controls]]
        types = super()._control_types(controls)
        for index, union in enumerate(unions):
            if union:
                types[index] = [_number(self._nets[index], controls[index])]
        return types

    def hole(self, control: int) -> float:
        union = [number is not None for types in self._types for number in types]
        return BLACK if union[control] else super().hole(control)

    @contextmanager
    def _prepared(self) -> Iterator[None]:
        vae, dtype = self.pipe.vae, self.pipe.vae.dtype
        with super()._prepared():
            try:
                yield
            finally:
                if vae.dtype != dtype:
                    vae.to(dtype=dtype)

    def _readers(self) -> list[Reader]:
        pipe = self.pipe
        pairs = ((pipe.tokenizer, pipe.text_encoder), (pipe.tokenizer_2, pipe.text_encoder_2))
        return [Reader(tokenizer=tokenizer, encoder=encoder, normed=False) for tokenizer, encoder in pairs]

    def _stock(self, prompt: str) -> Encoded:
        states, _, pooled, _ = self.pipe.encode_prompt(prompt, device=self.device, do_classifier_free_guidance=False)
        return states, pooled

    def _told(self, encoded: Encoded) -> Text:
        states, pooled = encoded
        height, width = self.geometry.window_px
        added = {"text_embeds": pooled, "time_ids": torch.tensor([[height, width, 0, 0, height, width]])}
        return Text(
            states=states.to(device=self.device, dtype=self.dtype),
            added={name: table.to(device=self.device, dtype=self.dtype) for name, table in added.items()},
        )

    def _unsaid(self, prompt: str | Encoded, text: Text) -> Text:
        if prompt != "" or not self.pipe.config.force_zeros_for_empty_prompt:
            return text
        pooled = torch.zeros_like(text.added["text_embeds"])
        return replace(text, states=torch.zeros_like(text.states), added={**text.added, "text_embeds": pooled})

    def blank_prompt(self) -> Encoded:
        config, encoder = self.pipe.unet.config, self.pipe.text_encoder_2
        tokens = encoder.config.max_position_embeddings if encoder is not None else TOKENS
        return torch.zeros(1, tokens, config.cross_attention_dim), torch.zeros(1, _pooled(config))

    def _unscaled(self, x0: Tensor) -> Tensor:
        mean, std = self._statistics(x0)
        if mean is None or std is None:
            return super()._unscaled(x0)
        unscaled: Tensor = x0 * std / self.pipe.vae.config.scaling_factor + mean
        return unscaled

    def _scaled(self, latents: Tensor) -> Tensor:
        mean, std = self._statistics(latents)
        if mean is None or std is None:
            return super()._scaled(latents)
        scaled: Tensor = (latents - mean) * self.pipe.vae.config.scaling_factor / std
        return scaled

    def _statistics(self, like: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Returns mean and deviation of the autoencoder's latents, (1, c, 1, 1); None, None where it states none."""
        mean, std = self.pipe.vae.config.get("latents_mean"), self.pipe.vae.config.get("latents_std")
        if mean is None or std is None:
            return None, None
        return like.new_tensor(mean).view(1, -1, 1, 1), like.new_tensor(std).view(1, -1, 1, 1)

    def encode(self, pictures: Tensor) -> Tensor:
        self._upcast()
        return super().encode(pictures)

    def decode(self, x0: Tensor) -> Tensor:
        self._upcast()
        return super().decode(x0)

    def _upcast(self) -> None:
        vae = self.pipe.vae
        if vae.dtype == torch.float16 and vae.config.force_upcast:
            vae.to(dtype=torch.float32)  # in float16 it overflows


def _pooled(unet: Mapping[str, Any]) -> int:
    """Returns how many pooled features a UNet's configuration leaves beside the time ids."""
    both, time_id = unet["projection_class_embeddings_input_dim"], unet["addition_time_embed_dim"]
    return int(both - TIME_IDS * time_id)


def _number(net: Any, control: str) -> int:
    """Returns a union's number of a control type. Raises `ModelError` if it has none."""
    count = net.config.num_control_type
    known = [name for name, number in UNION_TYPES.items() if number < count]
    if control not in known:
        more = f", and one of more types (promax) {control} too" if control in UNION_TYPES else ""
        raise ModelError(f"the union ControlNet does not follow {control!r}; it follows {', '.join(known)}{more}")
    return UNION_TYPES[control]

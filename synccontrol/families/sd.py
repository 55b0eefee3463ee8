"""Stable Diffusion 1.x and 2.x with any number of ControlNets."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import StableDiffusionControlNetPipeline, StableDiffusionPipeline
from transformers import CLIPTextModel

from synccontrol.families import checkpoints
from synccontrol.families.base import PromptEmbeds
from synccontrol.families.prompt_encoding import TextConditioning
from synccontrol.families.prompt_weights import CLIP_TOKENS, ClipEncoder
from synccontrol.families.unet_base import AbstractUNetFamily
from synccontrol.spec.settings import Geometry

PIPELINES = (
    "StableDiffusionPipeline",
    "StableDiffusionControlNetPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionControlNetInpaintPipeline",
)
HALF = torch.float16  # 16-bit dtype of its networks

_CLASSES = checkpoints.PipelineClasses(
    StableDiffusionPipeline, StableDiffusionControlNetPipeline, encoders={"text_encoder": CLIPTextModel}
)
_NO_SAFETY_CHECKER = {"safety_checker": None, "requires_safety_checker": False}


def load(base: str, controlnets: Sequence[str | tuple[str, str]], **options: Any) -> Any:
    """Load a diffusers pipeline without safety checker.

    Args:
        base: a diffusers folder or hub id.
        controlnets: one per control, a folder or hub id, or a pair of it and a subfolder.
        options: of `from_pretrained` (dtype, local_files_only, ...).
    """
    return checkpoints.load(_CLASSES, base, controlnets, **options | _NO_SAFETY_CHECKER)


def geometry(base: str, **options: Any) -> Geometry:
    """Return the native sizes that a model's configuration files state; options are those of `load`."""
    return checkpoints.geometry(base, **options)


def blank(base: str, controlnets: Sequence[str | tuple[str, str]], dtype: torch.dtype, **options: Any) -> Any:
    """Return the pipeline without weights or tokenizers, built from configuration files.

    Under a `FakeTensorMode` it takes no memory, which the memory estimate uses. Arguments are those of `load`.
    """
    parts = checkpoints.blank_parts(_CLASSES, base, controlnets, dtype, **options)
    return _CLASSES.for_controlnets(parts.get("controlnet", ()))(
        **parts, tokenizer=None, feature_extractor=None, **_NO_SAFETY_CHECKER
    )


class Family(AbstractUNetFamily):
    """A loaded `StableDiffusionPipeline` or `StableDiffusionControlNetPipeline`."""

    def _text_encoders(self) -> list[ClipEncoder]:
        return [ClipEncoder(tokenizer=self.pipe.tokenizer, encoder=self.pipe.text_encoder, has_final_norm=True)]

    def _pipeline_embeds(self, prompt: str) -> PromptEmbeds:
        return (self.pipe.encode_prompt(prompt, self.device, 1, False)[0],)

    def _conditioning(self, encoded: PromptEmbeds) -> TextConditioning:
        (states,) = encoded
        return TextConditioning(states=states.to(device=self.device, dtype=self.dtype))

    def blank_prompt(self) -> PromptEmbeds:
        encoder = self.pipe.text_encoder
        tokens = encoder.config.max_position_embeddings if encoder is not None else CLIP_TOKENS
        return (torch.zeros(1, tokens, self.pipe.unet.config.cross_attention_dim),)

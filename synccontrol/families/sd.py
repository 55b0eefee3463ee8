"""Stable Diffusion 1.x and 2.x, with any number of ControlNets or none."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

import diffusers
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from preprocess.silence import silent
from synccontrol.config import Geometry, SamplingConfig
from synccontrol.errors import ModelError
from synccontrol.families.base import AbstractFamily, Crops, View
from synccontrol.families.unet import EMBEDDING_BUDGET, Hints, Text, UNetPredict
from synccontrol.sampling.batches import Note
from synccontrol.sampling.loop import Predict

PIPELINES = ("StableDiffusionPipeline", "StableDiffusionControlNetPipeline")


def load(base: str, controlnets: Sequence[str | tuple[str, str]], **options: Any) -> Any:
    """Returns a diffusers pipeline, without safety checker.

    Args:
        base: a diffusers folder or hub id.
        controlnets: one per control, a folder or hub id, or a pair of it and a subfolder.
        options: of `from_pretrained` (dtype, local_files_only, ...).
    """
    options["safety_checker"] = None
    if not controlnets:
        return StableDiffusionPipeline.from_pretrained(base, requires_safety_checker=False, **options)
    nets = [_load_controlnet(source, options) for source in controlnets]
    return StableDiffusionControlNetPipeline.from_pretrained(
        base, controlnet=nets[0] if len(nets) == 1 else nets, requires_safety_checker=False, **options
    )


def geometry(base: str, **options: Any) -> Geometry:
    """Returns the native sizes that a model's configuration files state; options as those of `load`."""
    unet = UNet2DConditionModel.load_config(base, subfolder="unet", **options)
    vae = UNet2DConditionModel.load_config(base, subfolder="vae", **options)
    return _geometry(unet["sample_size"], len(vae["block_out_channels"]), unet["in_channels"])


def blank(base: str, controlnets: Sequence[str | tuple[str, str]], dtype: torch.dtype, **options: Any) -> Any:
    """Returns the pipeline that a model's configuration files describe: no weights are read, no words are known.

    Under a `FakeTensorMode` it takes no memory, so that its work can be rehearsed. Arguments as for `load`.
    """

    def build(kind: Any, source: str, subfolder: str | None) -> Any:
        return kind.from_config(kind.load_config(source, subfolder=subfolder, **options))

    index = diffusers.DiffusionPipeline.load_config(base, **options)
    (library, vae), (_, scheduler) = index["vae"], index["scheduler"]
    sources = [source if isinstance(source, tuple) else (source, None) for source in controlnets]
    with _default_dtype(dtype):  # modules of fake tensors cannot be converted afterwards
        nets = [build(ControlNetModel, *source) for source in sources]
        parts = {
            "unet": build(UNet2DConditionModel, base, "unet"),
            "vae": build(getattr(import_module(library), vae), base, "vae"),
            "text_encoder": CLIPTextModel(CLIPTextConfig.from_pretrained(base, subfolder="text_encoder", **options)),
            "scheduler": build(getattr(diffusers, scheduler), base, "scheduler"),
        }
    parts |= {"tokenizer": None, "safety_checker": None, "feature_extractor": None}
    if not nets:
        return StableDiffusionPipeline(**parts, requires_safety_checker=False)
    return StableDiffusionControlNetPipeline(**parts, controlnet=nets, requires_safety_checker=False)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _geometry(sample_size: int | Sequence[int], vae_blocks: int, channels: int) -> Geometry:
    h, w = (sample_size, sample_size) if isinstance(sample_size, int) else sample_size
    return Geometry(window=(h, w), cell=2 ** (vae_blocks - 1), channels=channels)


def _load_controlnet(source: str | tuple[str, str], options: dict[str, Any]) -> ControlNetModel:
    name, subfolder = source if isinstance(source, tuple) else (source, "")
    own = {key: options[key] for key in ("dtype", "local_files_only") if key in options}
    net: ControlNetModel = ControlNetModel.from_pretrained(name, subfolder=subfolder or None, **own)
    return net


class Family(AbstractFamily):
    """A loaded Stable Diffusion pipeline.

    Args:
        pipe: a `StableDiffusionPipeline` or `StableDiffusionControlNetPipeline`.

    Raises:
        ModelError: its UNet is not a text-to-image one, or an IP-Adapter is loaded.
    """

    def __init__(self, pipe: Any) -> None:
        config = pipe.unet.config
        channels = config.in_channels
        if channels != config.out_channels or channels != pipe.vae.config.latent_channels:
            raise ModelError(f"the UNet takes {channels} channels, so it is no text-to-image model; choose one that is")
        if config.get("encoder_hid_dim_type") == "ip_image_proj":
            raise ModelError("the pipeline has an IP-Adapter, which is not supported; call pipe.unload_ip_adapter()")
        self.pipe = pipe
        self.geometry = _geometry(config.sample_size, len(pipe.vae.config.block_out_channels), channels)
        controlnet = getattr(pipe, "controlnet", None)
        self._nets: list[Any] = list(getattr(controlnet, "nets", [controlnet] if controlnet is not None else []))
        self.controls = len(self._nets)

    @property
    def device(self) -> torch.device:
        device: torch.device = self.pipe._execution_device  # diffusers keeps it private, and has no other name for it
        return device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.pipe.unet.dtype
        return dtype

    @property
    def offloaded(self) -> bool:
        hooks = ("_hf_hook", "_diffusers_hook")  # accelerate's, and those of diffusers' group offloading
        return any(hook in vars(module) for module in self._modules() for hook in hooks)

    def _modules(self) -> list[nn.Module]:
        return [*super()._modules(), *self._nets]

    @contextmanager
    def _prepared(self) -> Iterator[None]:
        nets = [net for net in self._nets if not isinstance(net.controlnet_cond_embedding, _Ready)]
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
        guided = sampling.guidance_scale > 1 and not distilled
        texts = [[view.prompt for view in views]]
        if guided:
            texts.insert(0, [view.negative_prompt for view in views])
        elif any(view.negative_prompt != "" for view in views):
            note("the negative prompt does nothing: there is no guidance (guidance scale 1, or a distilled model)")
        timestep_cond = None
        if distilled:
            scale = torch.tensor([sampling.guidance_scale - 1])
            embedding = self.pipe.get_guidance_scale_embedding(scale, unet.config.time_cond_proj_dim)
            timestep_cond = embedding.to(device=self.device, dtype=self.dtype)
        budget = EMBEDDING_BUDGET // max(len(crops), 1)
        return UNetPredict(
            unet=unet,
            nets=self._nets if crops else [],
            hints=[Hints(partial(self._embed, net), one, budget) for net, one in zip(self._nets, crops, strict=False)],
            windows=[view.window for view in views],
            prompts=[self._text(prompts, note) for prompts in texts],
            timestep_cond=timestep_cond,
            sampling=sampling,
            steps=steps,
        )

    def _text(self, prompts: Sequence[str | Tensor], note: Note) -> Text:
        distinct = list(dict.fromkeys(prompts))
        states = [self._encode(prompt, note) for prompt in distinct]
        return Text(table=torch.cat(states), rows=[distinct.index(prompt) for prompt in prompts])

    def _encode(self, prompt: str | Tensor, note: Note) -> Tensor:
        """Returns the states (1, tokens, features) of one prompt."""
        if isinstance(prompt, Tensor):
            return prompt.to(device=self.device, dtype=self.dtype)
        tokenizer = self.pipe.tokenizer
        tokens = len(tokenizer(prompt, verbose=False).input_ids)
        if tokens > tokenizer.model_max_length:
            ids = tokenizer(prompt, truncation=True, max_length=tokenizer.model_max_length).input_ids
            note(
                f"the prompt has {tokens} tokens, of which the model reads {tokenizer.model_max_length}: "
                f"it ends after {tokenizer.decode(ids[1:-1][-4:])!r}"
            )
        with silent():  # what is cut is said above
            states: Tensor = self.pipe.encode_prompt(prompt, self.device, 1, False)[0]
        return states.to(self.dtype)

    def blank_prompt(self) -> Tensor:
        tokens = self.pipe.text_encoder.config.max_position_embeddings
        return torch.zeros(1, tokens, self.pipe.unet.config.cross_attention_dim)

    def _embed(self, net: Any, crops: Tensor) -> Tensor:
        """Returns a ControlNet's embedding of crops (k, 3, H, W) of its control map."""
        embedder = net.controlnet_cond_embedding.original
        crops = crops.to(device=self.device, dtype=next(embedder.parameters()).dtype)
        if net.config.controlnet_conditioning_channel_order == "bgr":
            crops = crops.flip(1)
        embedding: Tensor = embedder(crops)
        return embedding.to(self.device)

    def decode(self, x0: Tensor) -> Tensor:
        vae = self.pipe.vae
        latents = (x0 / vae.config.scaling_factor).to(device=self.device, dtype=vae.dtype)
        pictures: Tensor = vae.decode(latents, return_dict=False)[0]
        return pictures.to(x0.dtype)

    def release(self) -> None:
        self.pipe.maybe_free_model_hooks()


class _Ready(nn.Module):
    """Stands, for a session, where a ControlNet embeds its control map: `Hints` are embedded already."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.original = original

    def forward(self, embedding: Tensor) -> Tensor:
        return embedding

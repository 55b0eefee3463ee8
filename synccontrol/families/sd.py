"""Stable Diffusion 1.x and 2.x, with any number of ControlNets or none."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn

from synccontrol.config import Geometry, SamplingConfig
from synccontrol.errors import ModelError
from synccontrol.families._sd_skeleton import Skeleton
from synccontrol.families.base import AbstractDenoiser, control_scales
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


def skeleton(base: str, controlnets: Sequence[str | tuple[str, str]], dtype: torch.dtype, **options: Any) -> Skeleton:
    """Returns the networks without weights, to rehearse memory with; arguments as for `load`."""
    return Skeleton(base, controlnets, geometry(base, **options), dtype, **options)


def _geometry(sample_size: int | Sequence[int], vae_blocks: int, channels: int) -> Geometry:
    h, w = (sample_size, sample_size) if isinstance(sample_size, int) else sample_size
    return Geometry(window=(h, w), cell=2 ** (vae_blocks - 1), channels=channels)


def _load_controlnet(source: str | tuple[str, str], options: dict[str, Any]) -> ControlNetModel:
    name, subfolder = source if isinstance(source, tuple) else (source, "")
    own = {key: options[key] for key in ("dtype", "local_files_only") if key in options}
    net: ControlNetModel = ControlNetModel.from_pretrained(name, subfolder=subfolder or None, **own)
    return net


class Denoiser(AbstractDenoiser):
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
        size = config.sample_size
        self.pipe = pipe
        self.geometry = Geometry(
            window=(size, size) if isinstance(size, int) else tuple(size),
            cell=pipe.vae_scale_factor,
            channels=channels,
        )
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

    @contextmanager
    def running(self) -> Iterator[None]:
        modules = [part for part in self.pipe.components.values() if isinstance(part, nn.Module)]
        trainable = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
        for parameter in trainable:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in trainable:
                parameter.requires_grad_(True)
            self.pipe.maybe_free_model_hooks()

    def encode(
        self,
        prompt: str,
        negative_prompt: str,
        control_windows: Sequence[Tensor],
        sampling: SamplingConfig,
        timesteps: Tensor,
    ) -> Predict:
        return _Predictor(self, prompt, negative_prompt, control_windows, sampling, timesteps)

    def decode(self, x0: Tensor) -> Tensor:
        images: Tensor = self.pipe.vae.decode(x0 / self.pipe.vae.config.scaling_factor, return_dict=False)[0]
        return images

    def embed(self, net: Any, control_windows: Tensor) -> Tensor:
        """Returns a ControlNet's embedding of its control maps, which no timestep changes."""
        embedding = net.controlnet_cond_embedding
        parameter = next(embedding.parameters())  # with offloading, not yet on the execution device
        crops = control_windows.to(device=parameter.device, dtype=parameter.dtype)
        if net.config.controlnet_conditioning_channel_order == "bgr":
            crops = crops.flip(1)
        return torch.cat([embedding(crop[None]) for crop in crops]).to(self.device)


class _Predictor:
    """The prediction of windows for one picture: ControlNets, UNet, guidance."""

    def __init__(
        self,
        denoiser: Denoiser,
        prompt: str,
        negative_prompt: str,
        control_windows: Sequence[Tensor],
        sampling: SamplingConfig,
        timesteps: Tensor,
    ) -> None:
        self._unet: Any = denoiser.pipe.unet
        self._nets = denoiser._nets if control_windows else []
        self._sampling = sampling
        self._timesteps = timesteps
        # Models distilled to take the guidance as an input (LCM) are not guided a second time.
        distilled = self._unet.config.time_cond_proj_dim is not None
        self._guided = sampling.guidance_scale > 1 and not distilled
        positive, negative = denoiser.pipe.encode_prompt(
            prompt, denoiser.device, 1, self._guided, negative_prompt=negative_prompt
        )
        self._prompts = [negative, positive] if self._guided else [positive]
        self._timestep_cond: Tensor | None = None
        if distilled:
            scale = torch.tensor([sampling.guidance_scale - 1])
            embedding = denoiser.pipe.get_guidance_scale_embedding(scale, self._unet.config.time_cond_proj_dim)
            self._timestep_cond = embedding.to(device=denoiser.device, dtype=denoiser.dtype)
        self._embeddings = [denoiser.embed(net, crops) for net, crops in zip(self._nets, control_windows, strict=True)]

    def __call__(self, z: Tensor, index: int, windows: Sequence[int]) -> Tensor:
        n, t = len(windows), self._timesteps[index]
        copies = len(self._prompts)
        text = torch.cat([prompt.expand(n, -1, -1) for prompt in self._prompts])
        z = torch.cat([z] * copies)
        down, mid = self._control(z, text, index, windows)
        timestep_cond = self._timestep_cond.expand(n, -1) if self._timestep_cond is not None else None
        prediction: Tensor = self._unet(
            z,
            t,
            encoder_hidden_states=text,
            timestep_cond=timestep_cond,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
            return_dict=False,
        )[0]
        if not self._guided:
            return prediction
        unconditional, conditional = prediction.chunk(2)
        return unconditional + self._sampling.guidance_scale * (conditional - unconditional)

    def _control(
        self, z: Tensor, text: Tensor, index: int, windows: Sequence[int]
    ) -> tuple[list[Tensor] | None, Tensor | None]:
        """Returns the sum of the ControlNets' residuals for the UNet's down blocks and its middle block."""
        scales = control_scales(self._sampling, index, len(self._timesteps), len(self._nets))
        active = [part for part in zip(self._nets, self._embeddings, scales, strict=True) if part[2] > 0]
        down: list[Tensor] | None = None
        mid: Tensor | None = None
        for net, embeddings, scale in active:
            net_down, net_mid = self._residuals(net, embeddings[list(windows)], z, text, index, scale)
            down = net_down if down is None else [a + b for a, b in zip(down, net_down, strict=True)]
            mid = net_mid if mid is None else mid + net_mid
        return down, mid

    def _residuals(
        self, net: Any, embedding: Tensor, z: Tensor, text: Tensor, index: int, scale: float
    ) -> tuple[list[Tensor], Tensor]:
        guess = self._sampling.guess_mode or net.config.global_pool_conditions
        prompted_only = guess and self._guided
        if prompted_only:
            z, text = z.chunk(2)[1], text.chunk(2)[1]
        embedding = torch.cat([embedding] * (len(z) // len(embedding)))
        with _embedded(net, embedding):
            down, mid = net(
                z,
                self._timesteps[index],
                encoder_hidden_states=text,
                controlnet_cond=embedding,
                conditioning_scale=scale,
                guess_mode=guess,
                return_dict=False,
            )
        if prompted_only:  # the unprompted half is left uncontrolled
            down, mid = (
                [torch.cat([torch.zeros_like(d), d]) for d in down],
                torch.cat([torch.zeros_like(mid), mid]),
            )
        return down, mid


class _Embedded(nn.Module):
    def __init__(self, embedding: Tensor) -> None:
        super().__init__()
        self._embedding = embedding

    def forward(self, _: Tensor) -> Tensor:
        return self._embedding


@contextmanager
def _embedded(net: Any, embedding: Tensor) -> Iterator[None]:
    """Gives a ControlNet the embedding of its control map ready-made, for the time of one call."""
    original = net.controlnet_cond_embedding
    net.controlnet_cond_embedding = _Embedded(embedding)
    try:
        yield
    finally:
        net.controlnet_cond_embedding = original

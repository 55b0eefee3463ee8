"""Contact sheets: what the exported model draws, by the stock pipeline."""

from pathlib import Path

import numpy as np
import torch
from diffusers import ControlNetModel, DDIMScheduler, StableDiffusionControlNetPipeline, UNet2DConditionModel
from numpy.typing import NDArray
from transformers import CLIPTextModel, CLIPTokenizer

from synccontrol.models.codec import PatchAutoencoder
from synccontrol.preprocess.people.skeleton import draw
from training.cache import HELD_OUT, edges
from training.networks import CONTROLS
from training.render import BIOMES, TIMES, Scene, render

Picture = NDArray[np.uint8]
PROMPTS = (
    "mountains at noon", "a snowy landscape at dawn", "a desert at sunset", "a pine forest in the morning",
    "green hills on a sunny day", "a mountain lake at sunset", "the sea at night", "a city skyline at night",
    "alpine peaks at night", "a forest on an overcast day", "sand dunes by day", "a city at sunset",
)  # fmt: skip
VAGUE = "a landscape"


def pipeline(model: Path, control: str, dtype: torch.dtype = torch.float32) -> StableDiffusionControlNetPipeline:
    """Return the stock pipeline on an exported model, with one of its ControlNets."""
    pipe = StableDiffusionControlNetPipeline(
        vae=PatchAutoencoder.from_pretrained(model / "vae", torch_dtype=dtype),
        text_encoder=CLIPTextModel.from_pretrained(model / "text_encoder", dtype=dtype),
        tokenizer=CLIPTokenizer.from_pretrained(model / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(model / "unet", torch_dtype=dtype),
        controlnet=ControlNetModel.from_pretrained(model / f"controlnet-{control}", torch_dtype=dtype),
        scheduler=DDIMScheduler.from_pretrained(model / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def control_map(scene: Scene, control: str) -> Picture:
    """Return the exact control map (H, W, 3) of a scene."""
    height, width = scene.depth.shape
    if control == "pose":
        return draw(scene.people, height, width)
    grey = np.round(scene.depth * 255).astype(np.uint8) if control == "depth" else edges(scene.image)
    return np.repeat(grey[..., None], 3, 2)


def draw_windows(
    pipe: StableDiffusionControlNetPipeline,
    prompts: list[str],
    maps: list[Picture],
    *,
    strength: float = 1.5,
    steps: int = 25,
    guidance: float = 4.0,
    seed: int = 0,
) -> list[Picture]:
    """Return one picture (H, W, 3) for every prompt and map."""
    batch = torch.stack([torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in maps])
    result = pipe(
        prompts,
        image=batch,
        num_inference_steps=steps,
        guidance_scale=guidance,
        controlnet_conditioning_scale=strength,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
    ).images
    return list((np.clip(result, 0, 1) * 255).round().astype(np.uint8))


def sheet(model: Path, columns: int = 8) -> Picture:
    """Return a contact sheet: prompts alone, a vague prompt alone, then maps above what they give, per control."""
    blank = [np.zeros((256, 256, 3), np.uint8)] * columns
    free = pipeline(model, "depth")
    rows = [draw_windows(free, list(PROMPTS[:columns]), blank, strength=0.0)]
    rows.append(draw_windows(free, [VAGUE] * columns, blank, strength=0.0, seed=1))
    for number, control in enumerate(CONTROLS):
        scenes = [
            render(
                np.random.default_rng(HELD_OUT + 100 * number + column),
                people=1 + column % 3 if control == "pose" else None,
                biome=BIOMES[column % len(BIOMES)],
                time=TIMES[column % len(TIMES)],
            )
            for column in range(columns)
        ]
        maps = [control_map(scene, control) for scene in scenes]
        rows += [maps, draw_windows(pipeline(model, control), [scene.caption for scene in scenes], maps)]
    return np.vstack([np.hstack(row) for row in rows])

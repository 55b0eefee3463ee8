"""Use a diffusers pipeline that is loaded already, with a LoRA: python examples/own_pipeline.py [model [LoRA file ...]]

The model is a diffusers folder or hub id of Stable Diffusion; without one the bundled model is used, without a LoRA.
"""

import sys

from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

from synccontrol import Montage, SamplingConfig, SyncConfig, WindowConfig
from synccontrol.models import loader, registry

model, *lora = sys.argv[1:] or ["tiny"]
pipe = loader.load(model, []) if model in registry.PRESETS else StableDiffusionPipeline.from_pretrained(model)
pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
names = [f"lora{number}" for number in range(len(lora))]
for name, file in zip(names, lora, strict=True):
    pipe.load_lora_weights(file, adapter_name=name)
if names:
    pipe.set_adapters(names, [0.8] * len(names))  # at once: another call would turn the ones before off
# ... and dtype, device, offloading, another autoencoder: it is used as it is

montage = Montage.from_pipe(pipe)
h, w = montage.denoiser.geometry.window_px
result = montage(
    "a mountain valley at sunset",
    height=h,
    width=4 * w,
    sampling=SamplingConfig(steps=15, guidance_scale=5.0),
    windows=WindowConfig(weights="ramp"),
    sync=SyncConfig(objective="stlpips", gradient="x0", step_size="rms", weight=10.0),
)
result.save("own-pipeline.png", overwrite=True)
print("own-pipeline.png")

"""Uses a diffusers pipeline that is loaded already: python examples/own_pipeline.py [diffusers folder or hub id]"""

import sys

from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

from synccontrol import Montage, SamplingConfig, SyncConfig, WindowConfig
from synccontrol.models import hub, presets

model = sys.argv[1] if len(sys.argv) > 1 else "tiny"
pipe = hub.load(model, []) if model in presets.PRESETS else StableDiffusionPipeline.from_pretrained(model)
pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)  # and LoRAs, dtype, offloading ...

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
result.image.save("own-pipeline.png")
print("own-pipeline.png")

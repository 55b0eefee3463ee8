"""Images by two workers of Ray, each with the model loaded once: python examples/ray_workers.py

Ray is an extra: pip install "synccontrol[ray]"
"""

from pathlib import Path
from typing import Any

from synccontrol.batch.executor import RayExecutor
from synccontrol.batch.job import Job, Recipe
from synccontrol.batch.model_request import ModelRequest
from synccontrol.models import loader

CONTENT: dict[str, Any] = {"prompt": "a landscape at noon", "negative_prompt": "", "seed": 0}
GUIDES = Path(__file__).parent / "guides"

own = loader.defaults("tiny", "fast")
request = ModelRequest(model="tiny", controls=("canny",), controlnets=(), detectors=(), offline=True)
recipe = Recipe(request=request, sampling=own.sampling, windows=own.windows, sync=own.sync)
jobs = [
    Job(guide=GUIDES / f"{name}.png", output=Path(f"ray-{name}.png"), overwrite=True, recipe=recipe, **CONTENT)
    for name in ("desert", "lake")
]
executor = RayExecutor(2)
executor.ready(request)
for outcome in executor.work(iter(jobs)):
    print(outcome.output, outcome.error or f"in {sum(outcome.seconds.values()):.1f} s by {outcome.worker}")
executor.close()

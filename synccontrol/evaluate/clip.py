"""The CLIP score: how well the windows of a montage fit the prompt that it carries."""

from typing import Any

import torch
from torch import Tensor

from synccontrol.errors import ModelError
from synccontrol.evaluate.bootstrap import summary
from synccontrol.evaluate.measurement import Measurement, Progress, Settings
from synccontrol.evaluate.networks import NO_MODEL_HINT
from synccontrol.evaluate.pictures import Crops, Gallery
from synccontrol.models import fetching


def measure(
    gallery: Gallery, settings: Settings, progress: Progress
) -> tuple[list[Measurement], list[tuple[str, str]]]:
    """Returns the CLIP score of the windows for the prompts that montages carry, and what is left out, with why."""
    metric = f"CLIP score ({settings.clip})"
    prompts = {montage.name: str(montage.settings.get("prompt", "")) for montage in gallery.montages}
    silent = [(f"CLIP score of {name}", "it carries no prompt") for name, prompt in prompts.items() if not prompt]
    if len(silent) == len(prompts):
        return [], [(metric, "needs the prompts, and no montage carries one; use PNG files as SyncControl writes")]
    try:
        clip = Clip(settings)
    except ModelError as error:
        return [], [(metric, str(error))]
    values = {}
    spoken = [montage for montage in gallery.montages if prompts[montage.name]]
    for number, montage in enumerate(spoken, 1):
        progress(f"CLIP score: {montage.name} ({number} of {len(spoken)})")
        values[montage.name] = clip.score(gallery.crops(montage), prompts[montage.name])
    what = "How well the windows fit the prompt, as CLIP sees it; 0..100."
    source = "arXiv 2104.08718, by torchmetrics; Mean-CLIP-S of arXiv 2306.05178"
    measured = summary(metric, "fidelity", values, settings, better="higher", what=what, source=source, bounds={})
    return [measured], silent


class Clip:
    """A CLIP model as torchmetrics calls it; whatever transformers' own methods return, these return tensors."""

    def __init__(self, settings: Settings) -> None:
        """Raises `ModelError` when the model cannot be had."""
        from transformers import CLIPModel, CLIPProcessor

        def load(local: bool) -> tuple[Any, Any]:
            name = settings.clip
            model = CLIPModel.from_pretrained(name, local_files_only=local)
            return model, CLIPProcessor.from_pretrained(name, local_files_only=local)

        model, self._processor = fetching.fetch(load, [settings.clip], settings.offline, NO_MODEL_HINT)
        self._model = model.eval().to(settings.device)
        self._device, self._batch = settings.device, settings.window_batch
        self.config = model.config

    def score(self, crops: Crops, prompt: str) -> float:
        """Returns the mean CLIP score of crops for a prompt; so many at a time as one call of a network takes."""
        from torchmetrics.functional.multimodal import clip_score as score

        total = 0.0
        for start in range(0, len(crops), self._batch):
            some = (crops.take(start, start + self._batch) * 255).round().to(self._device, torch.uint8)
            with torch.inference_mode():
                found = score(list(some), [prompt] * len(some), model_name_or_path=lambda: (self, self._processor))
            total += float(found) * len(some)
        return total / len(crops)

    def to(self, device: torch.device) -> "Clip":
        return self

    def get_image_features(self, pixels: Tensor) -> Tensor:
        features: Tensor = self._model.visual_projection(self._model.vision_model(pixels).pooler_output)
        return features

    def get_text_features(self, tokens: Tensor, mask: Tensor) -> Tensor:
        pooled = self._model.text_model(input_ids=tokens, attention_mask=mask).pooler_output
        features: Tensor = self._model.text_projection(pooled)
        return features

"""IP-Adapters: a reference image that conditions the whole canvas together with the prompt."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from synccontrol.errors import ConfigError, ModelError

PROJECTION_TYPE = "ip_image_proj"  # encoder_hid_dim_type of a UNet with an IP-Adapter


def encode_reference(
    pipe: Any, image: Image.Image | None, device: torch.device, dtype: torch.dtype, negative: bool = False
) -> list[Tensor]:
    """Return the embeddings (1, 1, ...) of a reference image for each IP-Adapter; empty without adapters.

    Args:
        pipe: the pipeline.
        image: RGB reference image, or None.
        device: where the networks run.
        dtype: dtype of the UNet.
        negative: return the unconditional embeddings instead.

    Raises:
        ConfigError: there is an image and no IP-Adapter, or an IP-Adapter and no image.
        ModelError: an IP-Adapter has no image encoder.
    """
    if pipe.unet.config.encoder_hid_dim_type != PROJECTION_TYPE:  # diffusers sets the attribute, not the entry
        if image is not None:
            raise ConfigError("the model has no IP-Adapter; load one, or leave ip_image out")
        return []
    if image is None:
        raise ConfigError("the model has an IP-Adapter, which needs an image; give ip_image, or unload it")
    if pipe.image_encoder is None:
        raise ModelError("the IP-Adapter has no image encoder; load one for images, not for face features")
    images = [image] * len(pipe.unet.encoder_hid_proj.image_projection_layers)
    embeds = pipe.prepare_ip_adapter_image_embeds(images, None, device, 1, negative)
    return [embed[:1].to(device=device, dtype=dtype) for embed in embeds]  # the negative embeddings come first

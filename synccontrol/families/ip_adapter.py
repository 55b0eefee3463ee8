"""IP-Adapters: one picture that the whole canvas is shown, beside the prompt."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from synccontrol.errors import ConfigError, ModelError

KIND = "ip_image_proj"  # what a UNet with an IP-Adapter calls its image projection


def shown(
    pipe: Any, picture: Image.Image | None, device: torch.device, dtype: torch.dtype, negative: bool = False
) -> list[Tensor]:
    """Returns what the IP-Adapters of a pipeline make of a picture, (1, 1, ...) for each; of none without adapters.

    Args:
        pipe: the pipeline.
        picture: RGB; None: there is none.
        device: where the networks run.
        dtype: of the UNet.
        negative: what stands for no picture on the other side of the guidance.

    Raises:
        ConfigError: there is a picture and no IP-Adapter, or an IP-Adapter and no picture.
        ModelError: an IP-Adapter has no image encoder.
    """
    if pipe.unet.config.encoder_hid_dim_type != KIND:  # diffusers sets the attribute, not the entry
        if picture is not None:
            raise ConfigError("the model has no IP-Adapter to show a picture; load one, or leave the picture out")
        return []
    if picture is None:
        raise ConfigError("the model has an IP-Adapter, which must be shown a picture; give ip_image, or unload it")
    if pipe.image_encoder is None:
        raise ModelError("the IP-Adapter has no image encoder; load one that looks at pictures, not at faces' features")
    pictures = [picture] * len(pipe.unet.encoder_hid_proj.image_projection_layers)
    both = pipe.prepare_ip_adapter_image_embeds(pictures, None, device, 1, negative)
    return [one[:1].to(device=device, dtype=dtype) for one in both]  # the negative one stands first

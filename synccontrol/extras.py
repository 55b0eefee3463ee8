"""What is loaded into a model beside its own parts, or in their place."""

import dataclasses
from typing import ClassVar

from synccontrol.checks import require_number
from synccontrol.errors import ConfigError
from synccontrol.options import option

AUTO = "auto"  # the small autoencoder that is known to fit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extras:
    """LoRAs, an IP-Adapter, other autoencoders. Raises `ConfigError` for a value outside its range."""

    prefix: ClassVar[str] = ""  # of flags

    lora: tuple[str, ...] = option(
        (), "LoRA: file, folder or hub id, with a weight or none (a.safetensors:0.8); repeat it"
    )
    ip_adapter: str = option("", "IP-Adapter: hub id, or file in a folder or on the hub")
    ip_scale: float = option(1.0, "strength of the IP-Adapter")
    vae: str = option("", "autoencoder in place of the model's own: file, folder or hub id")
    tiny_vae: str = option(
        "", "small autoencoder (TAESD) that the objective and previews look through: auto, folder or hub id"
    )

    def __post_init__(self) -> None:
        if isinstance(self.lora, str) or not all(isinstance(one, str) for one in self.lora):
            raise ConfigError(f"lora is {self.lora!r}; give a list of files, folders or hub ids")
        object.__setattr__(self, "lora", tuple(self.lora))
        require_number("ip scale", self.ip_scale, 0.0)

    @property
    def loras(self) -> list[tuple[str, float]]:
        """Returns where each LoRA comes from, and its weight; 1 where none is given."""
        return [_weighted(one) for one in self.lora]

    @property
    def unweighed(self) -> "Extras":
        """Returns the same, each with its full strength: what is to be loaded, however strong it is then."""
        return dataclasses.replace(self, lora=tuple(source for source, _ in self.loras), ip_scale=1.0)


def _weighted(lora: str) -> tuple[str, float]:
    source, _, weight = lora.rpartition(":")
    try:
        return (source, float(weight)) if source else (lora, 1.0)
    except ValueError:  # a colon in a file name
        return lora, 1.0

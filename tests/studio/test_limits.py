import re

import pytest

from synccontrol.errors import ConfigError, InputError
from synccontrol.studio.queue import Limits


def test_the_most_is_allowed_and_no_more() -> None:
    limits = Limits(upload=1, pixels=2, canvas=1, steps=30)
    limits.check_bytes(1_000_000)
    limits.check_pixels(2000, 1000)
    limits.check_canvas(1000, 1000, 30)
    with pytest.raises(InputError, match="2 MB, and 1 MB are the most"):
        limits.check_bytes(1_600_000)
    with pytest.raises(InputError, match=re.escape("2001x1000 pixels, and 2 megapixels are the most")):
        limits.check_pixels(2001, 1000)
    with pytest.raises(ConfigError, match=re.escape("1001x1000 is more than the 1 megapixels")):
        limits.check_canvas(1001, 1000, 30)
    with pytest.raises(ConfigError, match="31 steps are more than the 30"):
        limits.check_canvas(64, 64, 31)


@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_a_limit_is_a_whole_number_above_zero(value: float) -> None:
    with pytest.raises(ConfigError, match="max queue"):
        Limits(queue=value)  # type: ignore[arg-type]

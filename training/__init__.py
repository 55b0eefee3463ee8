"""The renderer and the recipe that made the bundled model `tiny`."""

import synccontrol as synccontrol  # before torch: it chooses how threads wait

"""What is measured, and how to repeat it: see README.md."""

import synccontrol as synccontrol  # before torch: it chooses how threads wait

"""Where windows lie on a canvas, and how they blend."""

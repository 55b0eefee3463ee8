"""Where windows lie on a canvas, how they are cropped out of it, and how they blend."""

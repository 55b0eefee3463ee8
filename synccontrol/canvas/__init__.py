"""Canvases: the positions of windows, and how they blend into one image."""

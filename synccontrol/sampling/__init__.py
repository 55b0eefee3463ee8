"""Noise levels, schedulers, the montage loop, and sync."""

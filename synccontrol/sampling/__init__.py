"""Noise levels, solvers, the montage loop, and sync."""

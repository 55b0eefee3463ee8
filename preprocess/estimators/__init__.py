"""Estimators of depth, normals, lines, people and segments; each is imported on first use."""

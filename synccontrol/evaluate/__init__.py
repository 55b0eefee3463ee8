"""Evaluate folders of montages: coherence, fidelity, control and seams."""

from synccontrol.evaluate.measurement import Measurement, Scores, Settings
from synccontrol.evaluate.scoring import score

__all__ = ["Measurement", "Scores", "Settings", "score"]

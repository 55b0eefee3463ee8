"""The instrument: how coherent, faithful, obedient and seamless a folder of montages is."""

from synccontrol.evaluate.measurement import Measurement, Scores, Settings
from synccontrol.evaluate.scoring import score

__all__ = ["Measurement", "Scores", "Settings", "score"]

"""Does sync make windows alike, in figures? python examples/evaluation.py"""

from pathlib import Path

from synccontrol import Montage, SyncConfig
from synccontrol.evaluate import Settings, score

FOLDER, SEEDS = Path("evaluation"), (0, 1, 2)

montage = Montage.from_pretrained("tiny")
own = montage.defaults.sync
for name, sync in (("without", SyncConfig(weight=0.0, adain=0.0, draft_strength=0.0)), ("with", own)):
    (FOLDER / name).mkdir(parents=True, exist_ok=True)
    for seed in SEEDS:
        drawn = montage("a landscape", height=256, width=1024, seed=seed, sync=sync)
        drawn.save(FOLDER / name / f"{seed}.png", overwrite=True)
    scores = score(FOLDER / name, Settings(groups=("coherence",), offline=True))
    for figure in scores.measurements:
        print(f"{name:8} {figure.metric:40} {figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]")
# Side by side, with differences and a page: synccontrol evaluate evaluation/without evaluation/with --output report

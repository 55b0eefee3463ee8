"""Makes the guides of `examples/guides/`: rendered scenes, a ring, a drawing of shapes, a photograph-like picture."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from training.render import render

FOLDER = Path(__file__).parent.parent / "examples" / "guides"
HEIGHT, WIDTH = 256, 1536  # px
SEED = 4 * 10**9  # no scene of the training starts from a seed this high
Picture = NDArray[np.uint8]

SCENES: dict[str, dict[str, str]] = {
    "valley": {"biome": "alpine", "time": "noon", "clouds": "scattered"},
    "lake": {"biome": "lake", "time": "sunset", "clouds": "scattered"},
    "desert": {"biome": "desert", "time": "noon", "clouds": "clear"},
    "forest": {"biome": "forest", "time": "dawn", "clouds": "clear"},
    "city": {"biome": "city", "time": "night", "clouds": "clear"},
    "sea": {"biome": "sea", "time": "noon", "clouds": "cloudy"},
}


def scene(offset: int, *, people: int = 0, tileable: bool = False, **attributes: str) -> Picture:
    """Return one rendered guide (HEIGHT, WIDTH, 3)."""
    rng = np.random.default_rng(SEED + offset)
    picture: Picture = render(rng, height=HEIGHT, width=WIDTH, people=people, tileable=tileable, **attributes).image
    return picture


def shapes() -> Picture:
    """Return hills, trees, houses and a sun as a child would draw them: wobbly outlines, flat fillings."""
    rng = np.random.default_rng(SEED)
    paper = np.full((HEIGHT, WIDTH, 3), (250, 247, 238), np.uint8)

    def ink(points: NDArray[np.float64], filling: tuple[int, int, int]) -> None:
        wobbly = np.round(points + rng.normal(0, 1.2, points.shape)).astype(np.int32)
        cv2.fillPoly(paper, [wobbly], filling, cv2.LINE_AA)
        cv2.polylines(paper, [wobbly], True, (40, 40, 46), 2, cv2.LINE_AA)

    def ring(x: float, y: float, radius: float) -> NDArray[np.float64]:
        turns = np.linspace(0, 2 * np.pi, 22, endpoint=False)
        return np.stack([x + radius * np.cos(turns), y + radius * np.sin(turns)], 1)

    ink(ring(1240, 48, 24), (255, 208, 84))
    for x, y, half in ((120, 60, 170), (420, 84, 150), (760, 44, 200), (1080, 92, 150), (1420, 66, 180)):
        ink(np.array([(x - half, 190), (x, y), (x + half, 190)], float), (150, 156, 172))
    across = np.arange(-20, WIDTH + 41, 24.0)
    ground = np.stack([across, 176 + 12 * np.sin(across / 130)], 1)
    ink(np.concatenate([ground, [(WIDTH + 20, HEIGHT + 9), (-20, HEIGHT + 9)]]), (142, 192, 104))
    for x in (70, 250, 620, 700, 980, 1330, 1480):
        ink(np.array([(x - 5, 226), (x - 4, 190), (x + 4, 190), (x + 5, 226)], float), (126, 88, 60))
        ink(ring(x, 174, 24), (84, 150, 84))
    for x in (400, 1160):
        ink(np.array([(x, 230), (x, 184), (x + 56, 184), (x + 56, 230)], float), (226, 190, 150))
        ink(np.array([(x - 8, 184), (x + 28, 154), (x + 64, 184)], float), (196, 84, 70))
    return paper


def photograph_like() -> Picture:
    """Return a scene with what a camera adds: texture, soft focus, a darker rim, grain."""
    rng = np.random.default_rng(SEED + 1)
    picture = scene(31, biome="alpine", time="overcast", clouds="cloudy").astype(np.float32)
    for grain, strength in ((40, 6), (14, 5), (4, 5)):
        coarse = rng.normal(0, 1, (HEIGHT // grain + 2, WIDTH // grain + 2)).astype(np.float32)
        picture += strength * cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)[..., None]
    picture = cv2.GaussianBlur(picture, (0, 0), 0.9)
    x, y = np.linspace(-1, 1, WIDTH)[None, :], np.linspace(-1, 1, HEIGHT)[:, None]
    picture *= (1 - 0.16 * (x**2 + 0.5 * y**2))[..., None].astype(np.float32)
    picture += rng.normal(0, 1.6, (HEIGHT, WIDTH, 1)).astype(np.float32)
    return np.asarray(np.clip(np.round(picture), 0, 255), np.uint8)


def main() -> None:
    """Write every guide."""
    FOLDER.mkdir(exist_ok=True)
    guides = {name: scene(47 + i, people=0, tileable=False, **kind) for i, (name, kind) in enumerate(SCENES.items())}
    guides["people"] = scene(221, people=7, biome="grassland", time="noon", clouds="scattered")
    guides["ring"] = scene(22, tileable=True, biome="snow", time="dawn", clouds="scattered")
    guides["shapes"], guides["photograph"] = shapes(), photograph_like()
    for name, picture in guides.items():
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(FOLDER / f"{name}.png"), bgr, [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    main()

"""Captions: a scene's attributes, worded in many ways, some of them left out."""

import numpy as np

TIME_WORDS: dict[str, tuple[str, ...]] = {
    "dawn": (
        "at dawn",
        "at sunrise",
        "in the early morning",
        "in pink morning light",
        "at daybreak",
        "in the morning",
        "dawn",
        "sunrise",
    ),
    "noon": (
        "at noon",
        "by day",
        "under a blue sky",
        "in bright daylight",
        "on a sunny day",
        "in the daytime",
        "at midday",
        "noon",
        "sunny",
        "day",
    ),
    "sunset": (
        "at sunset",
        "at dusk",
        "in the evening",
        "under a red sky",
        "in golden evening light",
        "at golden hour",
        "sunset",
        "dusk",
    ),
    "night": (
        "at night",
        "under the stars",
        "in the moonlight",
        "by night",
        "under a starry sky",
        "on a starry night",
        "night",
        "at midnight",
    ),
    "overcast": (
        "on an overcast day",
        "under a grey sky",
        "in grey weather",
        "on a cloudy day",
        "in dull light",
        "overcast",
        "in the fog",
        "on a rainy day",
    ),
}
BIOME_WORDS: dict[str, tuple[str, ...]] = {
    "alpine": (
        "mountains",
        "snow-capped mountains",
        "an alpine landscape",
        "high peaks",
        "a mountain range",
        "alpine peaks",
        "an alpine valley",
        "the alps",
        "a mountain valley",
        "rocky mountains",
    ),
    "snow": (
        "a snowy landscape",
        "snow fields",
        "a winter landscape",
        "snowy hills",
        "snowy mountains in winter",
        "deep snow",
        "winter",
        "a frozen land",
    ),
    "desert": (
        "a desert",
        "sand dunes",
        "a desert landscape",
        "mesas and dunes",
        "a sandy desert",
        "dunes",
        "a desert valley with mesas",
        "the sahara",
        "a canyon in the desert",
    ),
    "forest": (
        "a forest",
        "a pine forest",
        "conifers",
        "woods",
        "a forest of tall conifers",
        "pine trees",
        "a dense forest",
        "fir trees",
    ),
    "grassland": (
        "a meadow",
        "green hills",
        "grassland",
        "rolling green hills",
        "a green valley",
        "fields",
        "pastures",
        "a prairie",
        "grassy hills",
    ),
    "lake": (
        "a lake",
        "a mountain lake",
        "a calm lake with reflections",
        "mountains mirrored in a lake",
        "a lake shore",
        "still water between mountains",
    ),
    "sea": ("the sea", "the ocean", "a calm sea", "islands in the sea", "a coast", "sailing boats on the sea", "a bay"),
    "city": (
        "a city",
        "a city skyline",
        "skyscrapers",
        "tall buildings",
        "a town",
        "a modern city",
        "towers of a big city",
        "an urban skyline",
    ),
}
_CLOUD_WORDS: dict[str, tuple[str, ...]] = {
    "clear": ("clear sky", "no clouds", "a cloudless sky"),
    "scattered": ("some clouds", "a few clouds", "scattered clouds"),
    "cloudy": ("many clouds", "a sky full of clouds", "clouds"),
}
_PEOPLE_WORDS: dict[str, tuple[str, ...]] = {
    "none": ("nobody", "no people"),
    "one": ("a person", "one person", "a hiker", "a man", "a woman", "a traveller", "a standing figure"),
    "two": ("two people", "two hikers", "a couple", "two friends", "two figures"),
    "three": ("three people", "three hikers", "three friends", "people"),
    "group": ("a group of people", "many people", "a crowd", "several hikers", "people"),
}
PEOPLE = tuple(_PEOPLE_WORDS)
_VAGUE = (
    "a landscape",
    "landscape",
    "a wide landscape",
    "a beautiful view",
    "scenery",
    "a panorama",
    "a picture",
    "nature",
    "a view",
    "outdoors",
)
_OPENINGS = (
    "",
    "",
    "",
    "",
    "a picture of ",
    "an illustration of ",
    "a painting of ",
    "a panorama of ",
    "a wide view of ",
    "a view of ",
    "a landscape with ",
    "flat illustration of ",
    "a poster of ",
    "a photo of ",
)
_ENDINGS = (
    "",
    "",
    "",
    "",
    "",
    ", flat colours",
    ", beautiful",
    ", highly detailed",
    ", wide angle",
    ", vector art",
    ", panorama",
    ", landscape",
    ", 4k",
)

_VAGUE_SHARE = 0.12
_KEEP = {"time": 0.85, "biome": 0.92, "people": 0.8, "nobody": 0.04, "clouds": 0.25}


def people_word(count: int) -> str:
    """Return the attribute that names a number of people."""
    return ("none", "one", "two", "three")[count] if count < 4 else "group"


def caption(rng: np.random.Generator, attributes: dict[str, str]) -> str:
    """Return one wording of a scene's attributes; now and then a vague one that names none of them."""

    def one_of(words: tuple[str, ...]) -> str:
        return words[rng.integers(len(words))]

    if rng.random() < _VAGUE_SHARE:
        words = one_of(_VAGUE)
        if attributes["people"] != "none" and rng.random() < _KEEP["people"]:
            words += f" with {one_of(_PEOPLE_WORDS[attributes['people']])}"
        return words
    place = one_of(BIOME_WORDS[attributes["biome"]] if rng.random() < _KEEP["biome"] else _VAGUE[:3])
    parts = []
    crowded = attributes["people"] != "none"
    if rng.random() < (_KEEP["people"] if crowded else _KEEP["nobody"]):
        who = one_of(_PEOPLE_WORDS[attributes["people"]])
        if crowded and rng.random() < 0.4:
            place = f"{who} in {place}"
        else:
            parts.append(f"with {who}")
    if rng.random() < _KEEP["time"]:
        parts.append(one_of(TIME_WORDS[attributes["time"]]))
    if rng.random() < _KEEP["clouds"]:
        parts.append(one_of(_CLOUD_WORDS[attributes["clouds"]]))
    if len(parts) > 1 and rng.random() < 0.5:
        parts.reverse()
    joint = ", " if rng.random() < 0.45 else " "
    return one_of(_OPENINGS) + joint.join([place, *parts]) + one_of(_ENDINGS)


def vocabulary() -> list[str]:
    """Return every wording that captions are made of, for building a tokenizer."""
    tables = (TIME_WORDS, BIOME_WORDS, _CLOUD_WORDS, _PEOPLE_WORDS)
    worded = [words for table in tables for choices in table.values() for words in choices]
    return [*worded, *_VAGUE, *_OPENINGS, *_ENDINGS, "with", "in"]

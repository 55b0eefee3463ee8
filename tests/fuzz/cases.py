"""Command lines and manifests, right and wrong, as Hypothesis draws them."""

import json
from typing import Any

from hypothesis import strategies as st

from synccontrol.spec.image_settings import CONFIGS
from synccontrol.spec.settings import flags

ABSURD_NUMBERS = (
    "-1",
    "0",
    "1",
    "2",
    "7",
    "1e9",
    "nan",
    "inf",
    "-inf",
    "0.5",
    "99999999999999999999",
    "",
    "x",
    "1_0",
    "٣",
)
TEXTS = ("", "hills", "a" * 500, "ünï\u2028", "\udcff", "{}", "<b>", "line\nline", "\x00")


def _values(names: list[str]) -> dict[str, st.SearchStrategy[str]]:
    """Returns what each flag is given: values at its limits and beyond."""
    numbers = st.sampled_from(ABSURD_NUMBERS)
    files = st.sampled_from([f"corpus/{name}" for name in names])
    sides = st.sampled_from(("64", "96", "160", "161", "1", "0", "-5", "63", "9999999999", "x"))
    values = {
        "guide": st.one_of(
            files, st.sampled_from(("few", "few/*.png", "few/[", "few/**", "", "none", "few/.", "/dev/null"))
        ),
        "control-map": st.one_of(files, st.sampled_from(("few", "canny=corpus/good.png", "depth=", "=", ""))),
        "control": st.sampled_from(("canny", "depth", "smell", "", "qr")),
        "prompt": st.sampled_from(TEXTS),
        "negative-prompt": st.sampled_from(TEXTS),
        "width": sides,
        "height": sides,
        "fit": st.sampled_from(("exact", "crop", "pad", "stretch", "squash", "")),
        "seed": st.one_of(numbers, st.just("random")),
        "seeds": st.sampled_from(("0-1", "3,4", "1-0", "-", ",", "0-999999999999", "x", "", "²")),
        "count": st.sampled_from(("1", "2", "0", "-1", "999999999", "x")),
        "settings": st.one_of(files, st.just("settings.json")),
        "model": st.sampled_from(("gpt", "", "nobody/nothing", "corpus", "../..", "/")),
        "controlnet": st.sampled_from(("", "corpus", "nobody/nothing")),
        "detector": st.sampled_from(("opencv", "tiny", "smell", "", "guide")),
        "device": st.sampled_from(("cpu", "cuda:99", "abacus", "", "cpu:0", "meta")),
        "dtype": st.sampled_from(("float32", "float64", "int8", "")),
        "output": st.sampled_from(
            ("out", "out/a.png", "out/deep/b.png", "made", "a.gif", "corpus/good.png", "/proc/x", "rows.jsonl", "")
        ),
        "engine": st.sampled_from(("local", "smoke")),
        "workers": st.sampled_from(("1", "0", "3")),
        "address": st.sampled_from(("", "here")),
    }
    for config in CONFIGS.values():
        for flag, field in flags(config).items():
            choices = [*field.setting.choices, "magic", ""]
            values[flag] = st.sampled_from(choices) if field.setting.choices else numbers
    values["steps"] = st.sampled_from(("1", "2", "0", "-1", "x", "1.5"))
    values["anchor"] = st.one_of(numbers, files, st.just("middle"))
    return values


SWITCHES = ("overwrite", "save-control-map", "report", "dry-run", "loop", "guess-mode", "no-loop", "nothing")


def command_lines(names: list[str]) -> st.SearchStrategy[list[str]]:
    """Returns what draws flags; a base that works comes first, of which some are changed."""
    values = _values(names)
    given = st.one_of([value.map(lambda text, flag=flag: [f"--{flag}", text]) for flag, value in values.items()])
    switches = st.sampled_from([[f"--{switch}"] for switch in SWITCHES])
    base = st.sampled_from(
        (
            ["--control", "canny", "--guide", "corpus/good.png"],
            ["--control", "canny", "--guide", "corpus/good.png", "--seeds", "0-1"],
            ["--control", "canny", "--control-map", "corpus/good.png"],
            ["--control", "canny", "--guide", "rows.jsonl"],
            ["--control", "canny", "--guide", "rows.csv"],
            ["--width", "96"],
            [],
        )
    )
    changes = st.lists(st.one_of(given, given, given, switches), max_size=4)
    return st.builds(lambda base, changes: [*base, *(word for change in changes for word in change)], base, changes)


def _rows(names: list[str]) -> st.SearchStrategy[Any]:
    files = st.sampled_from(names)
    anything = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.sampled_from(TEXTS),
        st.just([]),
        st.just({}),
    )
    own = {
        "image": st.one_of(
            files.map(lambda name: f"corpus/{name}"), st.sampled_from(("../x.png", "/etc/hostname", ""))
        ),
        "control_map": st.one_of(files.map(lambda name: f"corpus/{name}"), st.just([None, "corpus/good.png"])),
        "output": st.sampled_from(
            ("a.png", "../a.png", "/tmp/a.png", "b/../../c.png", "x.jpg", ".", "\x00.png", "é.png")
        ),
        "prompt": st.sampled_from(TEXTS),
        "seed": st.integers(-1, 2**64),
        "width": st.sampled_from((64, 160, 1, 10**9)),
        "steps": st.sampled_from((0, 1, 2)),
        "control": st.sampled_from(("canny", ["canny"], ["depth", "canny"], "smell")),
    }
    others = (
        "stride",
        "anchor",
        "model",
        "fit",
        "loop",
        "guide",
        "size",
        "",
        "scheduler",
        "control_scale",
        "sync_weight",
    )
    right = st.fixed_dictionaries({"image": own["image"]}, optional={key: own[key] for key in own if key != "image"})
    wrong = st.dictionaries(st.sampled_from((*own, *others)), anything, max_size=3)
    return st.one_of(right, st.builds(lambda one, two: {**one, **two}, right, wrong), anything)


Case = tuple[list[str], bytes, bytes]  # a command line, and the manifests that it may name


def cases(names: list[str]) -> st.SearchStrategy[Case]:
    """Returns what draws cases; a manifest that no flag names is empty, so that no two cases are the same."""

    def named(argv: list[str]) -> st.SearchStrategy[Case]:
        nothing = st.just(b"")
        rows = manifests(names) if "rows.jsonl" in argv else nothing
        return st.tuples(st.just(argv), rows, tables() if "rows.csv" in argv else nothing)

    return command_lines(names).flatmap(named)


def manifests(names: list[str]) -> st.SearchStrategy[bytes]:
    """Returns what draws JSON Lines: rows right and wrong, and bytes that are none."""
    rows = st.lists(_rows(names), max_size=4).map(lambda rows: "\n".join(json.dumps(row) for row in rows).encode())
    marked = rows.map(lambda text: b"\xef\xbb\xbf" + text)
    cut = st.builds(lambda text, end: text[: end % (len(text) + 1)], rows, st.integers(0, 500))
    return st.one_of(rows, rows, marked, cut, st.binary(max_size=80))


def tables() -> st.SearchStrategy[bytes]:
    """Returns what draws CSV."""
    header = st.sampled_from(("image,prompt", "image,seed,width", "image,image", "size", "image,control_map", ""))
    cell = st.sampled_from(("corpus/good.png", "corpus/cut.png", "5", "x", "", '"a', '"one, two"', "[1", "\ufeff", "é"))
    lines = st.lists(st.lists(cell, min_size=1, max_size=4).map(",".join), max_size=3)
    text = st.builds(lambda head, lines: "\r\n".join([head, *lines]).encode(), header, lines)
    return st.one_of(text, st.binary(max_size=60))

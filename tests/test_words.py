"""The check of words finds what it is for, and nothing else."""

from pathlib import Path

import pytest

from docs import words


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("found = 1\n", [1]),
        ("def load(kept):\n    return kept\n", [1]),
        ("class Wanted:\n    pass\n", [1]),
        ("for one in range(3):\n    print(one)\n", [1]),
        ("x = 1\n_said, y = 1, 2\n", [2]),
        ("latents = 1\nif latents == 'found':\n    print(latents.found)\n", []),  # no name of ours is defined
    ],
)
def test_names_that_say_nothing_are_found_where_they_are_defined(code: str, lines: list[int]) -> None:
    assert [finding.line for finding in words.in_code(Path("a.py"), code)] == lines


@pytest.mark.parametrize(
    ("text", "words_found"),
    [
        ("The scaffold is a rough picture.", ["scaffold", "rough picture"]),
        ("A draft, `--sync-scaffold` of old, [here](scaffold.md).", []),
        ("Visitors repaint it.", ["Visitors", "repaint"]),
    ],
)
def test_private_words_are_found_in_prose_but_not_in_code_or_links(text: str, words_found: list[str]) -> None:
    assert sorted(finding.word for finding in words.in_prose(Path("a.md"), text)) == sorted(words_found)


def test_the_check_fails_where_a_word_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("told = 1\n")
    assert words.main([str(bad)]) == 1
    assert capsys.readouterr().out == f"{bad}:1: told: write message, notes\n"
    bad.write_text("message = 1\n")
    assert words.main([str(bad)]) == 0

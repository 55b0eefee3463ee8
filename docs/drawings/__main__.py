"""Draws the pictures of README and site again: python -m docs.drawings [SET ...]"""

import argparse

from docs.drawings import composing, frontier, gallery, how, page, readme, strips

SETS = {
    "readme": readme.draw,
    "gallery": gallery.draw,
    "how": how.draw,
    "strips": strips.draw,
    "composing": composing.draw,
    "frontier": frontier.draw,
    "page": page.draw,
}


def main() -> None:
    """Writes all of them, or the sets that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(SETS)} (default: all)")
    wanted = parser.parse_args().sets
    unknown = [name for name in wanted if name not in SETS]
    if unknown:
        parser.error(f"there is no set {', '.join(unknown)}; choose of {', '.join(SETS)}")
    for name in wanted or SETS:
        SETS[name]()
        print(f"{name} is drawn", flush=True)


if __name__ == "__main__":
    main()

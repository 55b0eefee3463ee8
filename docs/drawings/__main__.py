"""Generate the images of the README and the site again: python -m docs.drawings [SET ...]"""

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
    """Generate the named sets of images, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"one of {', '.join(SETS)} (default: all)")
    names = parser.parse_args().sets
    unknown = [name for name in names if name not in SETS]
    if unknown:
        parser.error(f"there is no set {', '.join(unknown)}; use {', '.join(SETS)}")
    for name in names or SETS:
        SETS[name]()
        print(f"{name}: done", flush=True)


if __name__ == "__main__":
    main()

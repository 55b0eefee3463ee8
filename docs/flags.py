"""The reference of flags in `docs/flags.md`, made from the schema of settings: python -m docs.flags."""

from pathlib import Path

from synccontrol.spec.image_settings import ALL_CLASSES
from synccontrol.spec.schema import Flag, flags

PAGE = Path(__file__).parent / "flags.md"
BEGIN, END = "<!-- made by python -m docs.flags -->", "<!-- end of what is made -->"


def tables() -> str:
    """Return every setting as Markdown, a table for each class of them."""
    parts = []
    for cls in ALL_CLASSES:
        title = (cls.__doc__ or "").split("\n")[0].rstrip(".")
        rows = [_row(flag) for flag in flags(cls).values()]
        parts.append(
            "\n".join([f"### {title}", "", "| Flag | Meaning | Default | Earlier name |", "|---|---|---|---|", *rows])
        )
    return "\n\n".join(parts)


def _row(flag: Flag) -> str:
    setting = flag.setting
    meaning = setting.help + (f": {', '.join(f'`{choice}`' for choice in setting.choices)}" if setting.choices else "")
    default = setting.shown_default or ("" if flag.default in (None, "", (), False) else f"`{flag.default}`")
    old = ", ".join(f"`--{name}`" for name in setting.old_flags)
    cells = (f"`--{flag.name}`", meaning, default, old)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def written(text: str) -> str:
    """Return the page with its tables as they are today."""
    before, after = text.split(BEGIN)[0].rstrip(), text.split(END)[-1] if END in text else "\n"
    return f"{before}\n\n{BEGIN}\n\n{tables()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

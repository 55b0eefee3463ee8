"""The page's own parts: each a `gr.HTML` whose behaviour is the script of its name in `assets/`."""

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = (
    "core.js",
    "panzoom.js",
    "closer.js",
    "easel.js",
    "figures.js",
    "compare.js",
    "pannellum.js",
    "sphere.js",
    "history.js",
    "regions.js",
    "start.js",
    "reference.js",
)
HEAD = '<link rel="stylesheet" href="synccontrol/assets/pannellum.css">'
LOADED = """
window.synccontrolLoaded ??= (async () => {
  for (const name of SCRIPTS)
    await new Promise((loaded, failed) => {
      const script = document.createElement("script");
      [script.src, script.onload, script.onerror] = [`synccontrol/assets/${name}`, loaded, failed];
      document.head.append(script);
    });
})();
""".replace("SCRIPTS", str(list(SCRIPTS)))  # one after the other, and before any part is mounted


def part(name: str, value: Mapping[str, Any], *events: str, **options: Any) -> gr.HTML:
    """Returns a part of the page; what the server sends it is its `value`.

    Args:
        name: of its HTML file, and of the script that mounts it.
        value: what it shows at first, as JSON values.
        events: what it tells the server.
        options: of `gr.HTML`.
    """
    listed = ", ".join(f"'{event}'" for event in events)
    mount = f"synccontrolLoaded.then(() => synccontrol.mount('{name}', element, props, trigger, watch, [{listed}]));"
    return gr.HTML(
        value=dict(value),
        html_template=(ASSETS / f"{name}.html").read_text(encoding="utf-8"),
        js_on_load=LOADED + mount,
        elem_id=name,
        apply_default_css=False,
        **options,
    )


def escaped(text: object) -> str:
    """Returns a text that stands for itself in HTML."""
    return html.escape(str(text))

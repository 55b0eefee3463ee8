"""The page's own parts: each a `gr.HTML` whose behaviour is the script of its name in `assets/`."""

import html
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from synccontrol.models import listing, loader
from synccontrol.spec.image_spec import INPAINT, followed
from synccontrol.studio import form
from synccontrol.studio.api import picture_of
from synccontrol.studio.form import NONE, SLOTS, Fields
from synccontrol.studio.form_values import preset_values
from synccontrol.studio.handlers import Handing, Looking, Making

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


TITLE = "SyncControl: wide pictures"
GUIDE, MAP, PICTURE, COMPARE, SPHERE = "guide", "map", "picture", "compare", "sphere"
LOOKS = ("shape", "fit", "width", "height")  # fields that the control map depends on
FIRST_CONTROL = "depth"
FIRST_PROMPT = "a mountain valley at sunset"
REPAINTS = "<p>This model is made for repainting: it sees what is kept while it draws.</p>"
FIRST_PICTURE = {  # what Draw makes, pressed at once
    "src": "synccontrol/assets/first.webp",
    "label": "an example, drawn with what the page opens with: press Draw to see it come",
}


class Handlers(NamedTuple):
    """What answers visitors."""

    looking: Looking
    handing: Handing
    making: Making


def build(handlers: Handlers) -> gr.Blocks:
    """Returns the page."""
    looking = handlers.looking
    models = looking.models
    controls = sorted({name for model in models for name in followed(listing.controls(model))})
    chosen = FIRST_CONTROL if FIRST_CONTROL in controls else NONE
    first = preset_values(loader.defaults(models[0], offline=looking.offline))
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        gr.HTML("<h1>SyncControl</h1><p>One coherent wide picture that follows a guide.</p>", elem_id="title")
        with gr.Tabs(selected=GUIDE, elem_id="views") as tabs:
            with gr.Tab("Guide", id=GUIDE):
                easel = part("easel", {}, "guide", "forget")
            with gr.Tab("Map", id=MAP, render_children=True):
                look = part("map", {})
            with gr.Tab("Picture", id=PICTURE, render_children=True):
                picture = part("picture", {"figures": [FIRST_PICTURE]})
            with gr.Tab("Compare", id=COMPARE, render_children=True):
                part("compare", {})
            with gr.Tab("360°", id=SPHERE, render_children=True):
                part("sphere", {})
        own: Fields = {"region": part("regions", form.regions_shown(()), "edited")}
        with gr.Row(equal_height=True):
            own |= form.prompts(FIRST_PROMPT)
            with gr.Column(scale=1, min_width=140):
                draw = gr.Button("Draw", variant="primary", elem_id="draw")
                stop = gr.Button("Stop", variant="stop", elem_id="stop")
        status = part("status", {})
        with gr.Row(equal_height=True):
            own |= form.model(models)
            own["seed"] = gr.Number(0, label="Seed", info="of all noise", precision=0, minimum=0, min_width=120)
            dice = gr.Button("Roll the dice", min_width=110, scale=0, elem_id="dice")
            own["count"] = gr.Number(
                1,
                label="Variations",
                info="with the next seeds",
                precision=0,
                minimum=1,
                maximum=looking.limits.variations,
                min_width=120,
            )
        with gr.Row(equal_height=True):
            for slot in range(SLOTS):
                own |= form.control(slot, controls, chosen if slot == 0 else NONE)
        with gr.Accordion("Detector settings", open=False), gr.Row(equal_height=True):
            own |= form.detector_options(controls, [chosen])
        with gr.Row(equal_height=True):
            own |= form.canvas()
        with gr.Accordion("Start from a picture", open=False, elem_id="starting"):
            start = part("start", {}, "leave", "mask")
            repaints = gr.HTML(REPAINTS, visible=listing.repaints(models[0], looking.offline), elem_id="repaints")
            with gr.Row():
                own |= form.composing() | form.repainting(INPAINT in listing.controls(models[0]))
        reference = None
        if looking.adapters.lora or looking.adapters.ip_adapter:
            with gr.Accordion("Style", open=False, elem_id="style"):
                if looking.adapters.ip_adapter:
                    reference = part("reference", {}, "refer")
                with gr.Row():
                    own |= form.adapters(looking.adapters)
        with gr.Accordion("Enlarge", open=False), gr.Row():
            own |= form.enlarging()
        history = part("history", {}, "restore", "again", "start")
        own |= form.settings(first)
        _connect(
            handlers,
            page,
            own,
            {
                "tabs": tabs,
                "easel": easel,
                "map": look,
                "picture": picture,
                "status": status,
                "history": history,
                "start": start,
                "repaints": repaints,
                "reference": reference,
                "draw": draw,
                "stop": stop,
                "dice": dice,
            },
        )
        gr.api(picture_of(looking), api_name="picture", concurrency_limit=None)
    return page


def _connect(handlers: Handlers, page: gr.Blocks, own: Fields, shown: dict[str, Any]) -> None:
    """Connects fields and buttons to the handlers, which know all of them by name."""
    looking, handing, making = handlers
    looking.fields, making.shown = own, shown
    values = list(own.values())
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
    look = {"inputs": values, "outputs": [shown["map"], shown["status"]], "trigger_mode": "always_last", **quiet}

    page.load(handing.open, values, [shown["easel"], shown["map"], shown["status"]], **quiet)
    page.unload(making.leave)
    taken = [shown["map"], shown["status"], shown["tabs"], shown["start"]]
    shown["easel"].guide(handing.take, values, taken, trigger_mode="always_last", **quiet)
    shown["easel"].forget(handing.forget, **look)
    for name in (*LOOKS, *(f"detector{slot}" for slot in range(SLOTS)), *(name for name in own if ":" in name)):
        _on_input(own[name], looking.look, look)
    own["region"].edited(looking.look, **look)
    for slot in range(SLOTS):
        seen = [own[f"detector{slot}"], *(own[name] for name in own if ":" in name)]
        chosen = [own[f"control{number}"] for number in range(SLOTS)]
        own[f"control{slot}"].input(form.controls(own, slot), chosen, seen, **quiet).then(looking.look, **look)
    for name in ("model", "preset"):
        settings = [own[one] for one in form.PRESET_FIELDS]
        own[name].input(
            form.preset(looking.models, looking.offline), [own["model"], own["preset"]], settings, **quiet
        ).then(looking.look, **look)
    repainting = form.repainting_choice(looking.models, looking.offline)
    own["model"].input(repainting, own["model"], [own[INPAINT], shown["repaints"]], **quiet)
    shown["dice"].click(None, None, own["seed"], js="() => Math.floor(Math.random() * 2 ** 32)", **quiet)
    live = [shown[name] for name in ("picture", "status", "history", "tabs")]
    drawn = {"inputs": values, "outputs": live, **quiet}
    shown["draw"].click(making.draw, trigger_mode="multiple", **drawn)
    shown["stop"].click(making.stop, None, shown["status"], **quiet)
    begun = {"inputs": values, "outputs": [shown["start"], shown["map"], shown["status"]], **quiet}
    shown["history"].start(handing.start, **begun)
    shown["start"].leave(handing.start, **begun)
    shown["start"].mask(handing.mask, **look)
    if shown["reference"] is not None:
        shown["reference"].refer(handing.refer, values, [shown["reference"], shown["map"], shown["status"]], **quiet)
    restored = [*values, shown["status"]]
    mapped = {"inputs": values, "outputs": shown["map"], "trigger_mode": "always_last", **quiet}
    shown["history"].restore(handing.restore, None, restored, **quiet).then(looking.map, **mapped)
    shown["history"].again(handing.again, None, restored, **quiet).then(looking.map, **mapped)


def _on_input(field: gr.Component, handler: Callable[..., Any], options: dict[str, Any]) -> None:
    """Answers what a visitor enters: numbers and texts when they are done, choices at once."""
    event = "submit" if isinstance(field, gr.Number | gr.Textbox) else "input"
    getattr(field, event)(handler, **options)
    if event == "submit":
        field.blur(handler, **options)

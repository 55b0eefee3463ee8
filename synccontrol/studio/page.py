"""The page's own parts: each a `gr.HTML` whose behaviour is the script of its name in `assets/`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from synccontrol.models import listing, loader
from synccontrol.spec.image_spec import INPAINT, mapped_controls
from synccontrol.studio import form
from synccontrol.studio.api import picture_of
from synccontrol.studio.form import NONE, SLOTS, Fields
from synccontrol.studio.form_values import preset_values
from synccontrol.studio.handlers import GenerationHandlers, PreviewHandlers, UploadHandlers

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
    """Return a part of the page; its `value` comes from the server.

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


TITLE = "SyncControl: wide images"
GUIDE, MAP, PICTURE, COMPARE, SPHERE = "guide", "map", "picture", "compare", "sphere"
MAP_FIELDS = ("shape", "fit", "width", "height")  # fields that the control map depends on
FIRST_CONTROL = "depth"
FIRST_PROMPT = "a mountain valley at sunset"
INPAINTING_NOTE = "<p>This is an inpainting model: it sees the rest of the image while it generates.</p>"
FIRST_IMAGE = {  # generated with the values that the page opens with
    "src": "synccontrol/assets/first.webp",
    "label": "an example, generated with the values of this page: press Draw to see it again",
}


class Handlers(NamedTuple):
    """The handlers of the page's events."""

    previews: PreviewHandlers
    uploads_: UploadHandlers
    generation: GenerationHandlers


def build(handlers: Handlers) -> gr.Blocks:
    """Return the page."""
    previews = handlers.previews
    models = previews.models
    controls = sorted({name for model in models for name in mapped_controls(listing.controls(model))})
    chosen = FIRST_CONTROL if FIRST_CONTROL in controls else NONE
    first = preset_values(loader.defaults(models[0], offline=previews.offline))
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        gr.HTML("<h1>SyncControl</h1><p>One coherent wide image that follows a guide.</p>", elem_id="title")
        with gr.Tabs(selected=GUIDE, elem_id="views") as tabs:
            with gr.Tab("Guide", id=GUIDE):
                easel = part("easel", {}, "guide", "forget")
            with gr.Tab("Map", id=MAP, render_children=True):
                preview = part("map", {})
            with gr.Tab("Picture", id=PICTURE, render_children=True):
                picture = part("picture", {"figures": [FIRST_IMAGE]})
            with gr.Tab("Compare", id=COMPARE, render_children=True):
                part("compare", {})
            with gr.Tab("360°", id=SPHERE, render_children=True):
                part("sphere", {})
        own: Fields = {"region": part("regions", form.regions_value(()), "edited")}
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
                maximum=previews.limits.variations,
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
            repaints = gr.HTML(
                INPAINTING_NOTE, visible=listing.is_inpainting_model(models[0], previews.offline), elem_id="repaints"
            )
            with gr.Row():
                own |= form.img2img_fields() | form.inpainting(INPAINT in listing.controls(models[0]))
        reference = None
        if previews.adapters.lora or previews.adapters.ip_adapter:
            with gr.Accordion("Style", open=False, elem_id="style"):
                if previews.adapters.ip_adapter:
                    reference = part("reference", {}, "refer")
                with gr.Row():
                    own |= form.adapters(previews.adapters)
        with gr.Accordion("Enlarge", open=False), gr.Row():
            own |= form.upscaling()
        history = part("history", {}, "restore", "again", "start")
        own |= form.settings(first)
        _connect(
            handlers,
            page,
            own,
            {
                "tabs": tabs,
                "easel": easel,
                "map": preview,
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
        gr.api(picture_of(previews), api_name="picture", concurrency_limit=None)
    return page


def _connect(handlers: Handlers, page: gr.Blocks, own: Fields, parts: dict[str, Any]) -> None:
    """Connect fields and other parts to the handlers, which know them by name."""
    previews, uploads_, generation = handlers
    previews.fields, generation.parts = own, parts
    values = list(own.values())
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
    preview = {"inputs": values, "outputs": [parts["map"], parts["status"]], "trigger_mode": "always_last", **quiet}

    page.load(uploads_.open, values, [parts["easel"], parts["map"], parts["status"]], **quiet)
    page.unload(generation.leave)
    taken = [parts["map"], parts["status"], parts["tabs"], parts["start"]]
    parts["easel"].guide(uploads_.take, values, taken, trigger_mode="always_last", **quiet)
    parts["easel"].forget(uploads_.forget, **preview)
    for name in (*MAP_FIELDS, *(f"detector{slot}" for slot in range(SLOTS)), *(name for name in own if ":" in name)):
        _on_input(own[name], previews.preview, preview)
    own["region"].edited(previews.preview, **preview)
    for slot in range(SLOTS):
        seen = [own[f"detector{slot}"], *(own[name] for name in own if ":" in name)]
        chosen = [own[f"control{number}"] for number in range(SLOTS)]
        own[f"control{slot}"].input(form.controls(own, slot), chosen, seen, **quiet).then(previews.preview, **preview)
    for name in ("model", "preset"):
        settings = [own[name] for name in form.PRESET_FIELDS]
        own[name].input(
            form.preset(previews.models, previews.offline), [own["model"], own["preset"]], settings, **quiet
        ).then(previews.preview, **preview)
    inpainting = form.inpainting_choice(previews.models, previews.offline)
    own["model"].input(inpainting, own["model"], [own[INPAINT], parts["repaints"]], **quiet)
    parts["dice"].click(None, None, own["seed"], js="() => Math.floor(Math.random() * 2 ** 32)", **quiet)
    live = [parts[name] for name in ("picture", "status", "history", "tabs")]
    drawn = {"inputs": values, "outputs": live, **quiet}
    parts["draw"].click(generation.draw, trigger_mode="multiple", **drawn)
    parts["stop"].click(generation.stop, None, parts["status"], **quiet)
    begun = {"inputs": values, "outputs": [parts["start"], parts["map"], parts["status"]], **quiet}
    parts["history"].start(uploads_.start, **begun)
    parts["start"].leave(uploads_.start, **begun)
    parts["start"].mask(uploads_.mask, **preview)
    if parts["reference"] is not None:
        parts["reference"].refer(uploads_.refer, values, [parts["reference"], parts["map"], parts["status"]], **quiet)
    restored = [*values, parts["status"]]
    mapped = {"inputs": values, "outputs": parts["map"], "trigger_mode": "always_last", **quiet}
    parts["history"].restore(uploads_.restore, None, restored, **quiet).then(previews.map, **mapped)
    parts["history"].again(uploads_.again, None, restored, **quiet).then(previews.map, **mapped)


def _on_input(field: gr.Component, handler: Callable[..., Any], options: dict[str, Any]) -> None:
    """Connect a field's input to a handler: numbers and texts when they are complete, choices at once."""
    event = "submit" if isinstance(field, gr.Number | gr.Textbox) else "input"
    getattr(field, event)(handler, **options)
    if event == "submit":
        field.blur(handler, **options)

// A picture in the whole window: zoomed with wheel, fingers or keys, and moved.
"use strict";
{
  const make = synccontrol.make.bind(synccontrol);
  const LARGEST = 4; // times a picture's own pixels
  const STEP = 80; // px that an arrow key moves it by
  let shown = null; // what there is to show a picture, made when it is first wanted

  const built = () => {
    const picture = make("img", { draggable: "false" });
    const stage = make("div", { class: "stage", tabindex: "0", role: "group", "aria-label": "The picture; + and - zoom, arrows move it" }, picture);
    const size = make("output", { "aria-label": "Size" });
    const tools = make("div", { class: "tools" });
    const dialog = make("dialog", { class: "closer", "aria-label": "A picture, closer" }, tools, stage);
    document.body.append(dialog);
    const zoom = Panzoom(picture, { canvas: true, contain: "outside", cursor: "grab", minScale: 1 });
    // Returns how large the whole picture is in the window, in its own pixels.
    const whole = () => Math.min(stage.clientWidth / picture.naturalWidth, stage.clientHeight / picture.naturalHeight);
    const say = () => (size.textContent = `${Math.round(zoom.getScale() * whole() * 100)} %`);
    const button = (text, press) => make("button", { type: "button", onclick: press }, text);
    tools.append(
      button("Larger", () => zoom.zoomIn()),
      button("Smaller", () => zoom.zoomOut()),
      button("All of it", () => zoom.reset()),
      button("Every pixel", () => zoom.zoom(1 / whole())),
      size,
      button("Close", () => dialog.close()),
    );
    const move = (x, y) => zoom.pan(x * STEP, y * STEP, { relative: true });
    const keys = {
      "+": () => zoom.zoomIn(),
      "=": () => zoom.zoomIn(),
      "-": () => zoom.zoomOut(),
      0: () => zoom.reset(),
      1: () => zoom.zoom(1 / whole()),
      ArrowLeft: () => move(1, 0),
      ArrowRight: () => move(-1, 0),
      ArrowUp: () => move(0, 1),
      ArrowDown: () => move(0, -1),
    };
    const fit = () => {
      zoom.setOptions({ maxScale: Math.max(1, LARGEST / whole()) });
      zoom.reset({ animate: false });
      say();
    };
    stage.addEventListener("wheel", zoom.zoomWithWheel, { passive: false });
    picture.addEventListener("panzoomchange", say);
    picture.addEventListener("load", fit);
    addEventListener("resize", () => dialog.open && fit());
    dialog.addEventListener("keydown", (event) => {
      event.stopPropagation(); // on the page Escape stops what is drawn, and Enter draws
      const press = keys[event.key];
      if (!press || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      press();
    });
    return { dialog, picture, stage };
  };

  // Shows a picture in the whole window.
  synccontrol.closer = (src, label) => {
    shown ??= built();
    shown.picture.alt = label;
    shown.dialog.showModal();
    shown.stage.focus();
    shown.picture.src = src; // last: it is fitted to what is seen
  };
}

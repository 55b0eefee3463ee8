// Pictures below each other, on their way or finished, with the windows and the anchor drawn over them.
"use strict";
{
  const make = synccontrol.make.bind(synccontrol);

  // Returns the windows over a picture, px of the canvas; on a ring those that pass its end go on at its beginning.
  const overlay = (value) => {
    const svg = make("svg", { viewBox: `0 0 ${value.width} ${value.height}`, "aria-hidden": "true", preserveAspectRatio: "none" });
    value.boxes.forEach(([left, top, width, height], index) => {
      const kind = value.anchors.includes(index) ? "box anchor" : "box";
      for (const x of left + width > value.width ? [left, left - value.width] : [left])
        svg.append(make("rect", { class: kind, x, y: top, width, height }));
    });
    return svg;
  };

  const figures = (element) => {
    const find = (name) => element.querySelector("." + name);
    const place = find("figures");
    let value = { figures: [], boxes: [] };
    const live = Boolean(element.closest("#picture")); // where windows and anchor are shown while a picture comes
    let asked = false; // whether somebody has said what is to be drawn over pictures
    const draw = () => {
      place.replaceChildren(
        ...(value.figures || []).map((one) => {
          const frame = make("div", { class: "frame" }, make("img", { src: one.src, alt: one.label, draggable: "false", onclick: () => synccontrol.closer(one.src, one.label) }));
          if ((value.boxes || []).length) frame.append(overlay(value));
          return make("figure", {}, frame, make("figcaption", {}, one.label));
        }),
      );
      find("look").disabled = !(value.figures || []).length;
      find("notes").replaceChildren(...(value.notes || []).map((note) => make("li", {}, note)));
    };
    const look = () => {
      place.dataset.zoom = find("zoom").value;
      place.classList.toggle("with-windows", find("windows").checked);
      place.classList.toggle("with-anchor", find("anchored").checked);
    };
    element.addEventListener("change", (event) => {
      if (event.target.type === "checkbox") asked = true;
      look();
    });
    find("look").addEventListener("click", () => synccontrol.closer(value.figures[0].src, value.figures[0].label));
    look();
    return (now) => {
      value = now;
      const done = (value.figures || []).every((one) => !one.coming);
      if (!asked) for (const name of ["windows", "anchored"]) find(name).checked = !done && live;
      look();
      draw();
    };
  };

  synccontrol.parts.map = figures;
  synccontrol.parts.picture = (element) => {
    const show = figures(element);
    const chosen = () => {
      const entry = synccontrol.entry(synccontrol.chosen);
      if (entry) show({ figures: [{ src: entry.src, label: entry.title }], notes: entry.notes, boxes: [] });
    };
    synccontrol.bus.addEventListener("chosen", chosen);
    return show;
  };
}

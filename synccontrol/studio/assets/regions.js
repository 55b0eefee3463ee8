// Prompts for parts of the picture, along its width: borders are dragged, or moved with the arrow keys.
"use strict";
synccontrol.parts.regions = (element, trigger, set) => {
  const make = synccontrol.make.bind(synccontrol);
  const find = (name) => element.querySelector("." + name);
  const SPAN = /^(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)%$/;
  const WAIT = 500; // ms after a key until it is told
  let regions = [];
  let timer = 0;
  let fresh = {}; // what a new region is like

  const span = (region) => {
    const found = SPAN.exec(region.area.replaceAll(" ", ""));
    return found && Number(found[1]) < Number(found[2]) ? [Number(found[1]), Number(found[2])] : null;
  };
  const tell = () => {
    set({ regions: regions.map((one) => ({ ...one })), fresh });
    clearTimeout(timer);
    timer = setTimeout(() => trigger("edited", {}), WAIT);
  };
  const move = (region, end, to) => {
    const both = span(region);
    const other = both[1 - end];
    both[end] = Math.round(Math.min(100, Math.max(0, end ? Math.max(to, other + 2) : Math.min(to, other - 2))));
    region.area = `${both[0]}-${both[1]}%`;
    rule();
    const fields = element.querySelectorAll(".rows .area");
    fields[regions.indexOf(region)].value = region.area;
    tell();
  };
  const border = (region, end) => {
    const at = span(region)[end];
    const made = make("div", {
      class: "border", role: "slider", tabindex: "0", "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": at,
      "aria-label": `${end ? "Right" : "Left"} border of region ${regions.indexOf(region) + 1}, percent`,
      style: `left:${at}%`,
    });
    made.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10 }[event.key];
      if (!step) return;
      event.preventDefault();
      move(region, end, span(region)[end] + step);
      const same = `[aria-label="${made.getAttribute("aria-label")}"]`;
      element.querySelector(same).focus();
    });
    made.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      const box = find("ruler").getBoundingClientRect();
      const drag = (moved) => move(region, end, ((moved.clientX - box.left) / box.width) * 100);
      addEventListener("pointermove", drag);
      addEventListener("pointerup", () => removeEventListener("pointermove", drag), { once: true });
    });
    return made;
  };
  const rule = () => {
    const parts = regions.flatMap((region, index) => {
      const both = span(region);
      if (!both) return [];
      const style = `left:${both[0]}%;width:${both[1] - both[0]}%`;
      return [make("div", { class: `span span${index % 4}`, style }, region.prompt), border(region, 0), border(region, 1)];
    });
    find("ruler").replaceChildren(...parts);
    find("ruler").hidden = !parts.length;
  };
  const field = (region, name, label, number) => {
    const input = make("input", { class: name, type: number ? "number" : "text", min: "0", step: "any", value: region[name], size: { area: 9, prompt: 24 }[name] || 12 });
    input.addEventListener("input", () => {
      if (number && input.value === "") return;
      region[name] = number ? Number(input.value) : input.value;
      rule();
      tell();
    });
    return make("label", {}, label, input);
  };
  const draw = () => {
    find("rows").replaceChildren(
      ...regions.map((region, index) =>
        make("div", { class: "row tools", role: "group", "aria-label": `Region ${index + 1}` },
          field(region, "area", "Where "), field(region, "prompt", "Prompt "), field(region, "negative_prompt", "Avoid "),
          field(region, "control_scale", "Control × ", true), field(region, "soft", "Soft ", true),
          make("button", { type: "button", onclick: () => { regions.splice(index, 1); draw(); tell(); } }, "Remove")),
      ),
    );
    rule();
  };
  find("add").addEventListener("click", () => {
    const ends = regions.map(span).filter(Boolean).map((both) => both[1]);
    const from = Math.min(80, Math.max(0, ...ends));
    const to = regions.length ? Math.min(100, from + 35) : 50;
    regions.push({ ...fresh, area: `${from}-${to}%`, prompt: "" });
    draw();
    [...element.querySelectorAll(".rows .prompt")].pop().focus();
  });
  rule();
  return (value) => {
    fresh = value.fresh || fresh;
    const given = (value.regions || []).map((one) => ({ ...one }));
    if (JSON.stringify(given) === JSON.stringify(regions)) return; // what was just told
    regions = given;
    draw();
  };
};

// The picture that the next one starts from, and the brushed part of it that is drawn anew.
"use strict";
synccontrol.parts.start = (element, trigger) => {
  const find = (name) => element.querySelector("." + name);
  const canvas = find("mask");
  const pen = canvas.getContext("2d");
  const COLOUR = "#ff2d92";
  let stroke = null;

  const clean = () => {
    canvas.width = find("shown").naturalWidth;
    canvas.height = find("shown").naturalHeight;
    find("clean").disabled = true;
  };
  const { at, line } = synccontrol.brush(canvas, pen, () => COLOUR, find("size"));
  const send = () => {
    const mask = document.createElement("canvas");
    [mask.width, mask.height] = [canvas.width, canvas.height];
    const white = mask.getContext("2d");
    white.drawImage(canvas, 0, 0);
    white.globalCompositeOperation = "source-in";
    white.fillStyle = "#ffffff";
    white.fillRect(0, 0, mask.width, mask.height);
    white.globalCompositeOperation = "destination-over";
    white.fillStyle = "#000000";
    white.fillRect(0, 0, mask.width, mask.height);
    trigger("mask", { data: mask.toDataURL("image/png") });
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    line((stroke = at(event)), stroke);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (stroke) line(stroke, (stroke = at(event)));
  });
  canvas.addEventListener("pointerup", () => {
    if (!stroke) return;
    stroke = null;
    find("clean").disabled = false;
    send();
  });
  find("clean").addEventListener("click", () => {
    clean();
    trigger("mask", { data: "" });
  });
  find("none").addEventListener("click", () => trigger("leave", {}));
  find("shown").addEventListener("load", clean);
  return (value) => {
    find("chosen").hidden = !value.src;
    find("how").hidden = Boolean(value.src);
    find("name").textContent = value.name || "";
    if (value.src && find("shown").src !== value.src) find("shown").src = value.src;
  };
};

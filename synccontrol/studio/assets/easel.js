// The guide: opened, dropped, pasted, cropped, painted, or begun from nothing.
"use strict";
synccontrol.parts.easel = (element, trigger) => {
  const LARGEST = 16e6; // px of what is painted on; larger pictures are painted smaller
  const STEPS = 12; // of undo
  const WAIT = 700; // ms after a stroke until it is sent
  const find = (name) => element.querySelector("." + name);
  const canvas = find("paper");
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  let name = "sketch.png";
  let past = [];
  let stroke = null;
  let corner = null;
  let timer = 0;

  const image = (url) =>
    new Promise((done, failed) => {
      const picture = new Image();
      picture.onload = () => done(picture);
      picture.onerror = () => failed(new Error("no picture"));
      picture.src = url;
    });
  const hint = (text) => (find("hint").textContent = text);
  const sketched = () => name.replace(/(-painted)?\.[^.]*$/, "") + "-painted.png";

  const paper = (width, height) => {
    const scale = Math.min(1, Math.sqrt(LARGEST / (width * height)));
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(height * scale));
    find("size").max = Math.max(8, Math.round(canvas.height / 2));
  };
  const put = (picture) => {
    paper(picture.naturalWidth, picture.naturalHeight);
    pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  };
  const remember = () => {
    past.push(pen.getImageData(0, 0, canvas.width, canvas.height));
    past = past.slice(-STEPS);
    find("undo").disabled = false;
  };
  const send = (data) => trigger("guide", { data, name, role: find("role").value });
  const changed = () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      name = sketched();
      send(canvas.toDataURL("image/png"));
    }, WAIT);
  };

  const take = async (file) => {
    let data;
    try {
      data = await synccontrol.read(file);
    } catch {
      return hint(`${file.name} cannot be read; open it again`);
    }
    name = file.name;
    if (!/\.json$/i.test(name) && file.type !== "application/json") {
      try {
        const picture = await image(data);
        past = [];
        find("undo").disabled = true;
        put(picture);
        hint(`${name}, ${picture.naturalWidth}x${picture.naturalHeight} px`);
      } catch {
        hint(`${name} cannot be shown here`);
      }
    } else hint(`${name}: people, drawn as the map of the control pose`);
    send(data);
  };

  const { at, line } = synccontrol.brush(canvas, pen, () => find("colour").value, find("size"));
  const cropping = () => find("crop").getAttribute("aria-pressed") === "true";
  const frame = (from, to) => {
    pen.putImageData(past[past.length - 1], 0, 0);
    pen.setLineDash([12, 8]);
    pen.lineWidth = Math.max(2, canvas.height / 150);
    pen.strokeStyle = "#ff5a00";
    pen.strokeRect(from[0], from[1], to[0] - from[0], to[1] - from[1]);
    pen.setLineDash([]);
  };
  const crop = (from, to) => {
    const [left, right] = [from[0], to[0]].sort((a, b) => a - b).map((x) => Math.round(Math.min(Math.max(x, 0), canvas.width)));
    const [top, bottom] = [from[1], to[1]].sort((a, b) => a - b).map((y) => Math.round(Math.min(Math.max(y, 0), canvas.height)));
    pen.putImageData(past[past.length - 1], 0, 0);
    if (right - left < 8 || bottom - top < 8) return;
    const part = pen.getImageData(left, top, right - left, bottom - top);
    [canvas.width, canvas.height] = [part.width, part.height];
    pen.putImageData(part, 0, 0);
    find("crop").setAttribute("aria-pressed", "false");
    hint(`cropped to ${part.width}x${part.height} px`);
    changed();
  };

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    remember();
    if (cropping()) corner = at(event);
    else line((stroke = at(event)), stroke);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (corner) frame(corner, at(event));
    if (stroke) line(stroke, (stroke = at(event)));
  });
  canvas.addEventListener("pointerup", (event) => {
    if (corner) crop(corner, at(event));
    if (stroke) changed();
    corner = stroke = null;
  });
  find("undo").addEventListener("click", () => {
    const before = past.pop();
    [canvas.width, canvas.height] = [before.width, before.height];
    pen.putImageData(before, 0, 0);
    find("undo").disabled = !past.length;
    changed();
  });
  find("crop").addEventListener("click", () => {
    find("crop").setAttribute("aria-pressed", String(!cropping()));
    if (cropping()) hint("draw a frame around what is to stay");
  });
  find("blank").addEventListener("click", () => {
    remember();
    name = "sketch.png";
    pen.fillStyle = "#ffffff";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    hint("a white sheet: sketch what the picture is to follow");
  });
  find("clear").addEventListener("click", () => {
    paper(canvas.width, canvas.height);
    past = [];
    find("undo").disabled = true;
    hint("no guide: the picture is drawn from the prompt alone, so it needs a width, and no control");
    trigger("forget", {});
  });
  find("file").addEventListener("change", (event) => {
    if (event.target.files.length) take(event.target.files[0]);
    event.target.value = "";
  });
  synccontrol.droppable(element, take);
  document.addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
    if (file) take(file);
  });

  paper(1536, 256);
  return async (value) => {
    if (!value.guide) return;
    name = value.name;
    put(await image(value.guide));
  };
};

// Two pictures under a slider, and which of their settings differ.
"use strict";
synccontrol.parts.compare = (element) => {
  const make = synccontrol.make.bind(synccontrol);
  const find = (name) => element.querySelector("." + name);
  const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));

  const show = () => {
    const pair = [find("left"), find("right")].map((select) => synccontrol.entry(select.value));
    const both = pair.every(Boolean) && pair[0] !== pair[1];
    for (const name of ["pair", "slide", "differences"]) find(name).hidden = !both;
    find("hint").hidden = both;
    if (!both) return;
    const [left, right] = pair;
    find("over").src = left.src;
    find("over").alt = `Left: ${left.title}`;
    find("under").src = right.src;
    find("under").alt = `Right: ${right.title}`;
    const names = [...new Set([...Object.keys(left.settings), ...Object.keys(right.settings)])];
    const rows = names
      .filter((name) => text(left.settings[name]) !== text(right.settings[name]))
      .map((name) =>
        make("tr", {}, make("th", { scope: "row" }, name.replaceAll("_", " ")), make("td", {}, text(left.settings[name]) ?? ""), make("td", {}, text(right.settings[name]) ?? "")),
      );
    find("differences").querySelector("tbody").replaceChildren(...rows);
    slide();
  };
  const slide = () => {
    find("cut").style.clipPath = `inset(0 ${100 - find("border").value}% 0 0)`;
    find("pair").style.setProperty("--border", `${find("border").value}%`);
  };
  const entries = () => {
    const found = synccontrol.entries;
    const before = [find("left").value, find("right").value];
    synccontrol.options(find("left"), found, before[0] || (found[1] && found[1].token));
    synccontrol.options(find("right"), found, before[1] || (found[0] && found[0].token));
    if (found.length > 1 && find("left").value === find("right").value) find("left").value = found[1].token;
    show();
  };
  for (const name of ["left", "right"]) find(name).addEventListener("change", show);
  find("border").addEventListener("input", slide);
  const drag = (event) => {
    const box = find("pair").getBoundingClientRect();
    if (event.buttons !== 1) return;
    find("border").value = ((event.clientX - box.left) / box.width) * 100;
    slide();
  };
  find("pair").addEventListener("pointerdown", drag);
  find("pair").addEventListener("pointermove", drag);
  synccontrol.bus.addEventListener("entries", entries);
  entries();
  return () => {};
};

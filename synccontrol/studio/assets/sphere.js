// Rings and spheres from their inside (pannellum).
"use strict";
synccontrol.parts.sphere = (element) => {
  const find = (name) => element.querySelector("." + name);
  const LEAST = 120; // degrees that a picture is high at most, if it is a ring
  let viewer = null;
  let shown = "";

  const show = () => {
    const entry = synccontrol.entry(find("which").value);
    if (entry && entry.token === shown) return;
    if (viewer) viewer.destroy();
    viewer = null;
    shown = entry ? entry.token : "";
    find("viewer").hidden = !entry;
    find("hint").textContent = entry ? "Drag it, or use the arrow keys." : find("hint").textContent;
    if (!entry) return;
    const high = entry.kind === "sphere" ? 180 : Math.min(LEAST, (360 * entry.height) / entry.width);
    viewer = pannellum.viewer(find("viewer"), {
      type: "equirectangular",
      panorama: new URL(entry.src, document.baseURI).href,
      autoLoad: true,
      haov: 360,
      vaov: high,
      vOffset: 0,
      minPitch: -high / 2,
      maxPitch: high / 2,
      hfov: Math.min(100, high * 1.6),
      maxHfov: entry.kind === "sphere" ? 120 : Math.min(120, high * 2),
      showFullscreenCtrl: true,
      keyboardZoom: false,
    });
    synccontrol.viewer = viewer;
  };
  const entries = () => {
    synccontrol.options(find("which"), synccontrol.entries.filter((one) => one.kind), find("which").value);
    if (element.offsetParent) show();
  };
  const chosen = () => {
    const entry = synccontrol.entry(synccontrol.chosen);
    if (entry && entry.kind) find("which").value = entry.token;
    if (element.offsetParent) show();
  };
  find("which").addEventListener("change", show);
  synccontrol.bus.addEventListener("entries", entries);
  synccontrol.bus.addEventListener("chosen", chosen);
  new IntersectionObserver(() => element.offsetParent && show()).observe(element);
  entries();
  return () => {};
};

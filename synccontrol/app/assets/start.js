// The picture that the next one starts from.
"use strict";
synccontrol.parts.start = (element, trigger) => {
  const find = (name) => element.querySelector("." + name);
  find("none").addEventListener("click", () => trigger("leave", {}));
  return (value) => {
    find("chosen").hidden = !value.src;
    find("hint").hidden = Boolean(value.src);
    find("name").textContent = value.name || "";
    if (value.src) find("shown").src = value.src;
  };
};

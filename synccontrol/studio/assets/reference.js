// The picture that an IP-Adapter is shown.
"use strict";
synccontrol.parts.reference = (element, trigger) => {
  const find = (name) => element.querySelector("." + name);
  const take = async (file) => trigger("refer", { data: await synccontrol.read(file), name: file.name });
  find("file").addEventListener("change", (event) => {
    if (event.target.files.length) take(event.target.files[0]);
    event.target.value = "";
  });
  synccontrol.droppable(element, take);
  find("none").addEventListener("click", () => trigger("refer", { data: "" }));
  return (value) => {
    find("shown").hidden = find("none").hidden = !value.src;
    find("how").hidden = Boolean(value.src);
    find("name").textContent = value.name || "";
    if (value.src) find("shown").src = value.src;
  };
};

// The pictures of the session: chosen, downloaded, their settings restored, their commands copied.
"use strict";
synccontrol.parts.history = (element, trigger) => {
  const make = synccontrol.make.bind(synccontrol);
  const find = (name) => element.querySelector("." + name);

  const chosen = () => {
    const entry = synccontrol.entry(synccontrol.chosen);
    find("detail").hidden = !entry;
    for (const button of element.querySelectorAll(".strip button"))
      button.setAttribute("aria-pressed", String(button.dataset.token === synccontrol.chosen));
    if (!entry) return;
    find("title").textContent = entry.title;
    find("download").href = entry.src;
    find("download").download = entry.name;
    find("command").textContent = entry.command;
    find("copy").textContent = "Copy the command";
  };
  const press = (token) => {
    synccontrol.choose(token);
    synccontrol.open("Picture");
  };
  find("again").addEventListener("click", () => trigger("again", { token: synccontrol.chosen }));
  find("start").addEventListener("click", () => trigger("start", { token: synccontrol.chosen }));
  find("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(find("command").textContent);
      find("copy").textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(find("command")); // without leave to copy: it is selected
    }
  });
  const take = async (file) => trigger("restore", { data: await synccontrol.read(file), name: file.name });
  find("file").addEventListener("change", (event) => {
    if (event.target.files.length) take(event.target.files[0]);
    event.target.value = "";
  });
  synccontrol.droppable(element, take);
  synccontrol.bus.addEventListener("chosen", chosen);

  return (value) => {
    const before = synccontrol.entries.length ? synccontrol.entries[0].token : null;
    synccontrol.entries = value.entries || [];
    find("strip").replaceChildren(
      ...synccontrol.entries.map((one) =>
        make("button", { type: "button", "data-token": one.token, "aria-pressed": "false", onclick: () => press(one.token) }, make("img", { src: one.thumb, alt: one.title })),
      ),
    );
    synccontrol.tell("entries");
    const newest = synccontrol.entries.length ? synccontrol.entries[0].token : null;
    if (newest !== before) synccontrol.chosen = newest;
    chosen();
  };
};

// What the parts of the page have in common: how they are mounted, and how they tell each other what is chosen.
"use strict";
window.synccontrol = {
  parts: {},
  entries: [], // finished pictures, the newest first
  chosen: null, // the token of the one that is looked at
  bus: new EventTarget(), // "entries": there are others; "chosen": another one is looked at

  mount(name, element, props, trigger, watch, events) {
    const told = (event, data) => events.includes(event) && trigger(event, data);
    const show = this.parts[name](element, told, (value) => (props.value = value));
    const update = () => show(props.value || {});
    watch("value", update);
    update();
  },

  tell(what) {
    this.bus.dispatchEvent(new Event(what));
  },

  choose(token) {
    this.chosen = token;
    this.tell("chosen");
  },

  entry(token) {
    return this.entries.find((one) => one.token === token);
  },

  // Shows a view, as if its tab were pressed.
  open(view) {
    const tab = [...document.querySelectorAll("#views [role=tab]")].find((one) => one.textContent.trim() === view);
    if (tab) tab.click();
  },

  // Returns a file as a data URL.
  read(file) {
    return new Promise((done, failed) => {
      const reader = new FileReader();
      reader.onload = () => done(reader.result);
      reader.onerror = () => failed(reader.error);
      reader.readAsDataURL(file);
    });
  },

  // Returns what draws on a canvas as the pointer moves: where an event is, and a line from one place to another.
  brush(canvas, pen, colour, size) {
    return {
      at(event) {
        const box = canvas.getBoundingClientRect();
        return [((event.clientX - box.left) * canvas.width) / box.width, ((event.clientY - box.top) * canvas.height) / box.height];
      },
      line([x, y], [toX, toY]) {
        pen.strokeStyle = colour();
        pen.lineWidth = Number(size.value);
        pen.lineCap = pen.lineJoin = "round";
        pen.beginPath();
        pen.moveTo(x, y);
        pen.lineTo(toX + 0.01, toY);
        pen.stroke();
      },
    };
  },

  // Lets files be dropped onto an element.
  droppable(element, take) {
    element.addEventListener("dragover", (event) => event.preventDefault());
    element.addEventListener("drop", (event) => {
      event.preventDefault();
      event.stopPropagation();
      if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
    });
  },

  // Returns an element with attributes and children; texts are texts, never HTML.
  make(tag, attributes = {}, ...children) {
    const svg = ["svg", "rect", "text", "g", "title"].includes(tag);
    const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (value !== false) made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children);
    return made;
  },

  options(select, entries, wanted) {
    select.replaceChildren(...entries.map((one) => this.make("option", { value: one.token }, one.title)));
    if (entries.some((one) => one.token === wanted)) select.value = wanted;
  },
};

synccontrol.parts.status = (element) => {
  const text = element.querySelector(".news");
  const bar = element.querySelector("progress");
  return (value) => {
    text.textContent = value.text || "";
    text.classList.toggle("error", Boolean(value.error));
    element.querySelector(".line").classList.toggle("busy", Boolean(value.busy));
    bar.hidden = !value.busy;
    if (value.done === null || value.done === undefined) bar.removeAttribute("value");
    else bar.value = value.done;
  };
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest && event.target.closest("textarea, input:not([type=range]), select, [role=listbox]");
  if (event.key === "Escape") document.querySelector("#stop").click();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey || (!typing && event.target === document.body)))
    document.querySelector("#draw").click();
});

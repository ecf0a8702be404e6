// Two masks of one slide: divided by a border that can be moved, or side by side.

import { byId, element } from "./dom.js";

const STEP = 0.02;

export class Compare {
  // `changed` is called when other masks, or the same in another way, are to be shown; `moved`
  // when the border is elsewhere.
  constructor({ changed, moved }) {
    this.changed = changed;
    this.moved = moved;
    this.reset();
    const handle = byId("swipe");
    handle.onpointerdown = (event) => handle.setPointerCapture(event.pointerId);
    handle.onpointermove = (event) => {
      if (!handle.hasPointerCapture(event.pointerId)) return;
      const box = byId("stages").getBoundingClientRect();
      this.moveTo((event.clientX - box.left) / box.width);
    };
    handle.onkeydown = ({ key }) => {
      if (key === "ArrowLeft") this.moveTo(this.border - STEP);
      if (key === "ArrowRight") this.moveTo(this.border + STEP);
    };
  }

  reset() {
    this.mode = "";
    this.left = 0;
    this.right = 1;
    this.border = 0.5;
  }

  moveTo(border) {
    this.border = Math.min(Math.max(border, 0), 1);
    this.place();
    this.moved();
  }

  place() {
    const handle = byId("swipe");
    handle.hidden = this.mode !== "swipe";
    handle.style.left = `${100 * this.border}%`;
    handle.setAttribute("aria-valuenow", String(Math.round(100 * this.border)));
  }

  // As a word of the page's address, and back.
  get word() {
    return this.mode ? `${this.mode}-${this.left}-${this.right}-${Math.round(100 * this.border)}` : "";
  }

  read(word, count) {
    this.reset();
    const parts = /^(swipe|side)-(\d+)-(\d+)-(\d{1,3})$/.exec(word);
    if (parts === null || count < 2) return;
    this.mode = parts[1];
    [this.left, this.right] = parts.slice(2, 4).map((part) => Math.min(Number(part), count - 1));
    this.border = Math.min(Number(parts[4]), 100) / 100;
  }

  next() {
    const modes = ["", "swipe", "side"];
    this.mode = modes[(modes.indexOf(this.mode) + 1) % modes.length];
    this.changed();
  }

  // The panel's section, for slides with two layers or more.
  section(layers) {
    const chooser = (label, name, options) => {
      const select = element("select", {}, ...options.map(([value, text]) => (
        element("option", { value, selected: String(this[name]) === String(value) }, text)
      )));
      select.onchange = () => {
        this[name] = name === "mode" ? select.value : Number(select.value);
        this.changed();
      };
      return element("label", {}, label, select);
    };
    const names = layers.map((layer) => [layer.index, layer.info.name]);
    const modes = [["", "overlaid"], ["swipe", "divided"], ["side", "side by side"]];
    return element(
      "fieldset",
      {},
      element("legend", {}, "Compare"),
      chooser("Show", "mode", modes),
      ...(this.mode ? [chooser("Left", "left", names), chooser("Right", "right", names)] : []),
    );
  }
}

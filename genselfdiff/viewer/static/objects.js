// The objects of masks: waiting until the server has found them, and what it tells of one.

import { ask, element } from "./dom.js";
import { counted, number } from "./scale.js";

const ASK_MS = 500;

export class Objects {
  // `changed` is called when more is known, and with true when all is.
  constructor(changed) {
    this.changed = changed;
    this.open(null);
  }

  open(slide) {
    this.slide = slide;
    this.states = new Map();
  }

  // Whether those of a layer can be drawn; if not, they are looked for from now on.
  ready(layer) {
    if (!this.states.has(layer.index)) {
      this.states.set(layer.index, { share: 0, count: null, error: "" });
      this.wait(this.slide, layer.index);
    }
    return this.states.get(layer.index).count !== null;
  }

  async wait(slide, index) {
    for (;;) {
      let state;
      try {
        state = await (await ask(`slides/${slide}/objects/${index}`)).json();
      } catch (error) {
        state = { share: 0, count: null, error: error.message, isAway: error.status === undefined };
      }
      if (this.slide !== slide) return;
      this.states.set(index, state);
      this.changed(state.count !== null);
      if (state.count !== null || (state.error && !state.isAway)) return;
      await new Promise((done) => setTimeout(done, ASK_MS));
    }
  }

  // What is known of a layer's objects, for people.
  told(layer) {
    const state = this.states.get(layer.index);
    if (!state) return "";
    if (state.error) return state.error;
    if (state.count === null) return `Looking for objects: ${Math.floor(100 * state.share)} %`;
    return counted(state.count, "object");
  }

  async at(layer, { x, y }) {
    if (x < 0 || y < 0 || this.states.get(layer.index)?.count == null) return null;
    return (await ask(`slides/${this.slide}/objects/${layer.index}/at/${x}/${y}`)).json();
  }
}

export function describe(found) {
  const square = `${found.unit}\u00b2`;
  const rows = [
    ["Class", found.class],
    ["Area", `${number(found.area)} ${square}`],
    ["Perimeter", `${number(found.perimeter)} ${found.unit}`],
    ["Id", String(found.id)],
  ];
  return element("dl", {}, ...rows.flatMap(([name, value]) => [
    element("dt", {}, name),
    element("dd", {}, value),
  ]));
}

// Drawing on slides: what is plugged into the page.

import { ask } from "../dom.js";
import { counted } from "../scale.js";
import { Canvas } from "./canvas.js";
import { IGNORED } from "./field_picture.js";
import { sections, TOOLS } from "./panel.js";
import { Pointer } from "./pointer.js";
import { Record } from "./record.js";

// Pixels of the slide; the slider goes from one to the other by equal factors.
const SMALLEST = 1;
const LARGEST = 400;

const LEAST_FIELD = 8;

const OPACITY = 1;

class Corrections {
  constructor(page) {
    this.page = page;
    this.tool = "look";
    this.label = 1;
    this.sizeAt = 40;
    this.isShown = true;
    this.beginning = null;
    this.openedSlide = null;
    this.folder = "";
    this.message = "";
    this.record = new Record({
      changed: () => this.changed(),
      told: (message) => page.tell(message),
    });
    this.canvas = new Canvas(page.stage, () => this.content());
    this.pointer = new Pointer(page.stage, this);
    this.keys = this.keyList();
    ask("corrections").then((answer) => answer.json()).then(({ folder }) => {
      this.folder = folder;
      this.changed();
    });
  }

  keyList() {
    const isDrawing = () => ["brush", "eraser"].includes(this.tool);
    const size = (by) => () => isDrawing() && this.choose({ sizeAt: this.sizeAt + by });
    const step = (kind) => () => this.step(kind);
    return [
      ...TOOLS.map(([tool, , key, purpose]) => [key, purpose, () => this.choose({ tool })]),
      ["[", "with a brush: a smaller one", size(-5)],
      ["]", "with a brush: a larger one", size(5)],
      [",", "class before", () => this.nextClass(-1)],
      [".", "next class", () => this.nextClass(1)],
      ["Enter", "close the polygon", () => this.pointer.close()],
      ["Backspace", "take back its last corner", () => this.pointer.stepBack()],
      ["Escape", "forget what is not finished", () => this.forget()],
      ["Ctrl+z", "undo", step("undo")],
      ["Ctrl+y", "redo", step("redo")],
      ["Ctrl+Shift+z", "redo", step("redo")],
      ["d", "hide what is drawn, show it again", () => this.choose({ isShown: !this.isShown })],
      ["w", "write images, masks and GeoJSON", () => this.writeResults()],
      ["space", "while it is held: move the slide", () => false],
    ];
  }

  get info() {
    return this.page.info;
  }

  // What a field can begin as: [word, text, what the server is told].
  get beginnings() {
    const masks = this.page.layers.filter((layer) => layer.isMask).map((layer) => {
      const told = layer.hasObjects ? { layer: layer.index } : { model: layer.model };
      return [JSON.stringify(told), `as ${layer.info.name} shows it`, told];
    });
    const awaited = this.page.awaited.map(({ name, model }) => (
      [JSON.stringify({ model }), `as ${name} will show it`, { model }]
    ));
    return [...masks, ...awaited, ["", "empty", {}]];
  }

  // The one that is chosen, if it is there, or the first.
  get begins() {
    const all = this.beginnings;
    return all.find(([word]) => word === this.beginning) ?? all[0];
  }

  get radius() {
    return SMALLEST * (LARGEST / SMALLEST) ** (this.sizeAt / 100) / 2;
  }

  opened() {
    this.pointer.forget();
    this.message = "";
    const { info, slide } = this.page;
    if (slide !== this.openedSlide) this.beginning = null;
    this.openedSlide = slide;
    this.record.open(info ? slide : null);
  }

  // Whether something is being drawn that would be lost.
  get isBusy() {
    const { pointer, record } = this;
    return Boolean(pointer.stroke || pointer.corners || pointer.frame || record.waiting.length);
  }

  section() {
    if (!this.info || !this.record.state) return null;
    return sections(this);
  }

  // Change what is chosen.
  choose(chosen) {
    Object.assign(this, chosen);
    this.sizeAt = Math.min(Math.max(this.sizeAt, 0), 100);
    if ("tool" in chosen) {
      this.pointer.forget();
      if (this.tool !== "look") this.page.choose(null);
    }
    this.page.stage.viewer.element.classList.toggle("drawing", this.tool !== "look");
    this.changed();
  }

  nextClass(by) {
    if (!this.record.state) return;
    const labels = [...this.record.state.classes.keys(), IGNORED];
    const place = labels.indexOf(this.label) + by;
    this.choose({ label: labels[(place + labels.length) % labels.length] });
  }

  forget() {
    const had = this.pointer.forget() || this.record.release();
    this.moved();
    return had;
  }

  changed() {
    const { stage } = this.page;
    stage.keepOut(this.isShown ? this.record.fields : []);
    this.page.fillPanel();
    this.moved();
  }

  moved() {
    this.canvas.later();
  }

  // What is kept, and where, for people.
  get told() {
    const { record } = this;
    const count = record.unsent;
    if (count && record.error) return `Not saved yet: ${counted(count, "stroke")}. ${record.error}`;
    if (count) return "Saving \u2026";
    if (record.heldHere.length) return "Waits until that is predicted. Escape: forget it.";
    return this.message || `Kept in ${this.folder}`;
  }

  // What `Canvas` draws.
  content() {
    const { pointer, record } = this;
    if (!record.state || !this.isShown) return null;
    const colour = (label) => {
      if (label === 0) return "#ffffff99";
      const [r, g, b] = record.state.classes[label]?.colour ?? [120, 120, 120];
      return `rgb(${r} ${g} ${b} / 45%)`;
    };
    const framed = record.waiting.filter(({ action }) => action.kind === "field");
    const frames = [
      ...framed.map(({ action }) => action),
      ...record.heldHere.flatMap(({ box }) => box ?? []),
      ...(pointer.frame ? [pointer.frame] : []),
    ];
    const strokes = record.waiting.flatMap(({ preview }) => (preview ? [preview] : []));
    if (pointer.stroke) strokes.push({ stroke: pointer.stroke, field: pointer.within });
    const isBrush = ["brush", "eraser"].includes(this.tool) && !pointer.isMoving;
    const { place } = pointer;
    return {
      fields: record.fields,
      opacity: OPACITY,
      strokes: strokes.map((each) => ({ ...each, colour: colour(each.stroke.label) })),
      frames,
      ring: pointer.corners && [...pointer.corners, ...(place ? [[place.x, place.y]] : [])],
      pointer: isBrush && place ? { ...place, radius: this.radius } : null,
    };
  }

  fieldAt(place) {
    return this.record.state && this.record.fieldAt(place);
  }

  outside() {
    this.page.tell("Draw in a field: choose Field, and frame one.");
  }

  framed(box) {
    if (box.width < LEAST_FIELD || box.height < LEAST_FIELD) return;
    const [, , begins] = this.begins;
    this.record.do({ kind: "field", ...box, ...begins });
  }

  drawn(stroke, field) {
    if (stroke.label !== IGNORED && !this.record.state.classes[stroke.label]) {
      this.page.tell("There is no class to draw yet: add one.");
      return;
    }
    this.message = "";
    const preview = stroke.kind === "object" ? null : { stroke, field };
    this.record.do({ ...stroke, field: field.id }, preview);
  }

  step(kind) {
    if (!this.record.state) return;
    this.message = "";
    this.pointer.forget();
    if (kind === "undo" && this.record.release()) return;
    this.record.do({ kind });
  }

  goTo(field) {
    const size = this.page.stage.viewer.viewport.getContainerSize();
    const zoom = 0.8 * Math.min(size.x / field.width, size.y / field.height);
    const [x, y] = [field.x + field.width / 2, field.y + field.height / 2];
    this.page.stage.goTo({ x, y, zoom });
  }

  // Do something that the server has words for.
  async say(work) {
    this.message = "\u2026";
    this.changed();
    try {
      this.message = await work();
    } catch (error) {
      this.message = "";
      this.page.tell(error.message);
    }
    this.changed();
  }

  addClass(name) {
    return this.say(async () => {
      await this.record.addClass(name);
      this.label = this.record.state.classes.length - 1;
      return "";
    });
  }

  readGeojson(file) {
    const [, , begins] = this.begins;
    return this.say(() => this.record.readGeojson(file, begins));
  }

  writeResults() {
    if (!this.record.state) return;
    this.say(() => this.record.writeResults());
  }
}

export function plug(page) {
  return new Corrections(page);
}

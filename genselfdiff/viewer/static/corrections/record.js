// What is drawn on a slide: asked of the server, sent there stroke by stroke, and kept until it is
// there.

import { AGAIN_MS, ask, send } from "../dom.js";
import { FieldPicture } from "./field_picture.js";

const LOOK_MS = 2000;

const HELD_MS = 400;

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

export class Record {
  // `changed` is called when other things are drawn, `told` with what people should know.
  constructor({ changed, told }) {
    this.changed = changed;
    this.told = told;
    this.unsent = 0;
    // What the server has still to take, in its order, by slide.
    this.queues = new Map();
    // What waits until something is predicted: the slide, and the box of a field or null.
    this.held = [];
    this.open(null);
    setInterval(() => this.look(), LOOK_MS);
    window.addEventListener("beforeunload", (event) => {
      if (this.unsent) event.preventDefault();
    });
  }

  // Another slide, or none. What waits for the last one is still sent.
  async open(slide) {
    this.slide = slide;
    this.state = null;
    this.fields = [];
    if (!this.queues.has(slide)) this.queues.set(slide, []);
    this.waiting = this.queues.get(slide);
    this.error = "";
    this.isStale = false;
    if (slide === null) return;
    try {
      await this.take(slide, await this.asked(), true);
    } catch (error) {
      if (this.slide === slide) this.told(error.message);
    }
  }

  async asked() {
    return (await ask(`corrections/${this.slide}`)).json();
  }

  get colours() {
    return this.state.classes.map(({ colour }) => colour);
  }

  fieldAt(place) {
    return this.fields.find((field) => field.holds(place));
  }

  // Do something; what it looks like meanwhile is `preview`, for whoever draws it.
  do(action, preview = null) {
    const id = Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => (
      byte.toString(16).padStart(2, "0")
    )).join("");
    this.waiting.push({ action: { id, ...action }, preview });
    this.unsent++;
    this.changed();
    if (this.waiting.length === 1) this.sendAll(this.slide, this.waiting);
  }

  // One after the other, until the server has them.
  async sendAll(slide, waiting) {
    let { version } = this.state;
    while (waiting.length) {
      const { action } = waiting[0];
      // What comes after others that wait undoes what these make, too.
      if (action.kind === "undo" || action.kind === "redo") action.version ??= version;
      try {
        const again = () => send(`corrections/${slide}`, action);
        const state = await again();
        this.error = "";
        if (state.waits) this.hold(slide, again, action);
        else {
          ({ version } = state);
          await this.take(slide, state);
        }
      } catch (error) {
        this.error = error.message;
        if (error.status === undefined) {  // it does not answer: nothing is lost yet
          this.changed();
          await pause(AGAIN_MS);
          continue;
        }
        this.told(error.message);
        if (this.slide === slide) {
          await this.look(true);
          version = this.state?.version ?? version;
        }
      }
      waiting.shift();
      this.unsent--;
      this.changed();
    }
  }

  // Ask again for what waits until something is predicted; what the server says at last, or null.
  async hold(slide, again, box = null) {
    const held = { slide, box };
    this.held.push(held);
    this.changed();
    let state = null;
    for (;;) {
      await pause(HELD_MS);
      if (!this.held.includes(held)) return null;
      try {
        state = await again();
        if (state.waits) continue;
        await this.take(slide, state);
      } catch (error) {
        if (error.status === undefined) continue;
        this.told(error.message);
      }
      this.drop(held);
      return state;
    }
  }

  // What waits here until something is predicted.
  get heldHere() {
    return this.held.filter(({ slide }) => slide === this.slide);
  }

  // Forget what waits so, the last first; whether there was anything.
  release() {
    const last = this.heldHere.at(-1);
    this.drop(last);
    return last !== undefined;
  }

  drop(held) {
    this.held = this.held.filter((other) => other !== held);
    this.changed();
  }

  // Show what the server says is drawn now on a slide, if that is the one that is shown.
  async take(slide, state, all = false) {
    if (this.slide !== slide) return;
    const last = this.state;
    if (last !== null && state.version < last.version) return;
    // Steps that this page has not asked for are those of another one.
    const isOther = last !== null && state.version > last.version + 1;
    const known = new Map(this.fields.map((field) => [field.id, field]));
    const fields = state.fields.map((field) => known.get(field.id) ?? new FieldPicture(slide, field));
    const recoloured = last !== null && last.classes.length !== state.classes.length;
    this.state = state;
    const anew = all || isOther || this.isStale;
    this.isStale = true;  // until all is here
    await Promise.all(fields.map((field) => {
      if (anew || !known.has(field.id)) return field.refresh(this.colours);
      if (state.changed?.field === field.id) return field.refresh(this.colours, state.changed.box);
      return recoloured ? field.paint(this.colours) : null;
    }));
    if (this.slide !== slide) return;
    this.isStale = false;
    this.fields = fields;
    this.changed();
  }

  // Look whether another page has drawn something.
  async look(evenNow = false) {
    const { slide, state } = this;
    if (state === null || this.looking) return;
    if (!evenNow && (document.hidden || this.waiting.length)) return;
    this.looking = true;
    try {
      const now = await this.asked();
      if (this.slide === slide && this.state === state && now.version !== state.version) {
        await this.take(slide, now, true);
      }
    } catch {
      // What is drawn next tells of it.
    } finally {
      this.looking = false;
    }
  }

  async addClass(name) {
    const { slide } = this;
    await this.take(slide, await send(`corrections/${slide}/classes`, { name }));
  }

  // Fields in which nothing is drawn begin as is told.
  async readGeojson(file, begins) {
    const { slide } = this;
    const address = `corrections/${slide}/geojson?${new URLSearchParams(begins)}`;
    const again = () => send(address, file, "application/geo+json");
    let state = await again();
    if (state.waits) state = await this.hold(slide, again);
    else await this.take(slide, state);
    return state?.told ?? "";
  }

  async writeResults() {
    return (await send("corrections/results", {})).told;
  }
}

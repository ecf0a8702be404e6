// Layers of models that predict what is seen.

import { AGAIN_MS, ask, element, send } from "../dom.js";
import { Layer } from "../layers.js";
import { counted, number } from "../scale.js";
import { LiveSource } from "./live_source.js";

const ASK_MS = 500;

const MOVED_MS = 120;

class LiveLayer extends Layer {
  constructor(index, model, { name, classes }, coarsest) {
    super(index, { name: `${name} (live)`, kind: "live", classes });
    Object.assign(this, { model, coarsest, count: 0, working: false });
  }

  source(slide, info) {
    return new LiveSource(slide, info, this);
  }
}

class Live {
  constructor(page) {
    this.page = page;
    this.lines = element("div", { role: "status" });
    this.panel = element("fieldset", {}, element("legend", {}, "Live"), this.lines);
    this.models = [];
  }

  section() {
    return this.page.info && this.models.length ? this.panel : null;
  }

  layers() {
    return this.page.layers.filter((layer) => layer instanceof LiveLayer);
  }

  async opened() {
    const { page } = this;
    clearTimeout(this.asking);
    this.answer = null;
    if (page.info) await this.read(page.slide);
  }

  // Add the layers of models that were read meanwhile; ask again while some are not.
  async read(slide) {
    const { page } = this;
    let told;
    try {
      told = await (await ask("live")).json();
    } catch (error) {
      page.tell(error.message);
      if (error.status === undefined) this.readLater(slide, AGAIN_MS);
      return;
    }
    if (page.slide !== slide || !page.info) return;
    this.models = told.models;
    page.awaited = told.models
      .map(({ name, classes, error }, model) => ({ name, model, isRead: classes.length || error }))
      .filter(({ isRead }) => !isRead);
    const there = new Set(this.layers().map(({ model }) => model));
    const added = told.models
      .map((state, model) => ({ state, model }))
      .filter(({ state, model }) => state.classes.length && !there.has(model))
      .map(({ state, model }, i) => (
        new LiveLayer(page.layers.length + i, model, state, told.coarsest)
      ));
    if (added.length) {
      const seen = page.layers.some((layer) => layer.visible);
      for (const layer of added) layer.visible = !seen && layer === added[0];
      page.addLayers(added);
      if (this.comparing) this.compare(added[0]);
      await page.showLayers();
    } else if (!this.panel.isConnected) page.fillPanel();
    this.describe();
    page.moved(page.stage);
    if (page.awaited.length) this.readLater(slide, ASK_MS);
  }

  readLater(slide, milliseconds) {
    clearTimeout(this.reading);
    this.reading = setTimeout(() => this.page.slide === slide && this.read(slide), milliseconds);
  }

  // Show what a model that has just come makes of the slide, beside what the first one does.
  compareNewest() {
    this.comparing = true;
    this.read(this.page.slide);
  }

  compare(newest) {
    const { page } = this;
    this.comparing = false;
    page.compare.mode = "swipe";
    page.compare.left = this.layers()[0].index;
    page.compare.right = newest.index;
    page.fillPanel();
  }

  moved() {
    this.wait(MOVED_MS);
  }

  wait(milliseconds) {
    clearTimeout(this.asking);
    this.asking = setTimeout(() => this.look(), milliseconds);
  }

  // Tell the server what is seen, and take what is known of it.
  async look() {
    const { page } = this;
    const { info, slide, stage } = page;
    const layers = this.shown();
    if (!info || !layers.length || document.hidden) return this.describe();
    if (this.looking) return this.wait(MOVED_MS);
    this.looking = true;
    try {
      const { x, y, width, height } = stage.viewer.viewport.getBounds();
      const window = [x, y, width, height].map((side) => Math.round(side * info.width));
      const [left, top] = [Math.max(window[0], 0), Math.max(window[1], 0)];
      const seen = [left, top, window[0] + window[2] - left, window[1] + window[3] - top];
      const answer = await send("live/look", {
        slide,
        models: layers.map(({ model }) => model),
        since: layers.map(({ count }) => count),
        window: seen.map((side) => Math.max(side, 0)),
      });
      if (page.slide !== slide) return;
      this.answer = answer;
      await Promise.all(layers.map((layer, i) => this.take(layer, answer.pictures[i])));
    } catch (error) {
      this.answer = null;
      this.lines.replaceChildren(element("small", {}, error.message));
      if (error.status === undefined) this.wait(AGAIN_MS);
      return;
    } finally {
      this.looking = false;
    }
    this.describe();
    if (this.answer.pictures.some(({ missing, error }) => missing && !error)) this.wait(ASK_MS);
  }

  // The live layers that are on the screen.
  shown() {
    const { page } = this;
    const shown = page.stages().flatMap((stage) => page.shownOn(stage));
    const layers = new Set(shown.map(({ layer }) => layer));
    return this.layers().filter((layer) => layers.has(layer));
  }

  async take(layer, { count, put, missing, error }) {
    const working = missing > 0 && !error;
    const isOther = working !== layer.working;
    layer.working = working;
    for (const stage of this.page.stages()) {
      for (const { source } of stage.all()) {
        if (!(source instanceof LiveSource) || source.layer !== layer) continue;
        const isNew = put.length > 0 && (await source.update(put));
        if (isOther) source.redraw();
        if (isNew || isOther) stage.viewer.forceRedraw();
      }
    }
    layer.count = count;  // only now: what could not be fetched is told again
  }

  describe() {
    const told = this.models
      .map(({ name, classes, error }) => {
        if (error) return `${name}: ${error}`;
        return classes.length ? "" : `${name}: the model is being read`;
      })
      .filter(Boolean);
    const { answer } = this;
    if (this.layers().length && !this.shown().length) {
      told.push("Off: tick the box of a layer that is called (live), and what you look at is predicted.");
    } else if (answer) {
      const { pictures, seen, most, speed } = answer;
      const errors = new Set(pictures.map(({ error }) => error).filter(Boolean));
      const missing = pictures.reduce((sum, picture) => sum + picture.missing, 0);
      const mpx = (pixels) => `${number(pixels / 1e6)} Mpx`;
      told.push(...errors);
      if (seen > most) {
        told.push(`Zoom in to predict: ${mpx(seen)} are seen, ${mpx(most)} at most are predicted.`);
      } else if (missing && !errors.size) {
        told.push(`In work: ${counted(missing, "square")}${speed ? `, ${mpx(speed)} a second` : ""}`);
      } else if (!errors.size) told.push("All that is seen is predicted.");
    }
    this.lines.replaceChildren(...told.map((line) => element("small", {}, line)));
  }
}

export function plug(page) {
  return new Live(page);
}

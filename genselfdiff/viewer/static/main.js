// The page: which slide is shown, with which layers, and what its controls do.

import { readAddress, writeAddress } from "./address.js";
import { Compare } from "./compare.js";
import { ask, byId, element, refill } from "./dom.js";
import { answerKeys } from "./keys.js";
import { Layer, layerSection } from "./layers.js";
import { describe, Objects } from "./objects.js";
import { number, showScale } from "./scale.js";
import { fillList, markCurrent } from "./slide_list.js";
import { Stage } from "./stage.js";
import { OutlineSource } from "./tile_sources.js";

const ADDRESS_MS = 200;

const MESSAGE_MS = 8000;

class Page {
  constructor(slides) {
    this.slides = slides;
    // What is plugged in: static/NAME/part.js exports plug(page), which gives an object with some of
    //   opened()   a slide is shown: page.slide, page.info, page.stage; also called with none
    //   moved()    another part of it is seen
    //   section()  its part of the panel, or null
    //   isBusy     whether somebody does something in it that opening the slide anew would lose
    //   keys       [key, what for, action]; the action may return false: the key is not for it
    this.parts = [];
    this.layers = [];
    // Names and numbers of models whose layers are still to come.
    this.awaited = [];
    this.outlines = true;
    this.compare = new Compare({
      changed: () => {
        this.told.compare = "";
        this.fillPanel();
        this.changed("layers");
      },
      moved: () => this.moved(this.stage),
    });
    this.objectLines = element("div");
    this.objects = new Objects((all) => {
      this.tellObjects();
      if (all) this.showLayers();
    });
    this.stage = this.newStage("stage");
    this.leader = this.stage;
  }

  newStage(id) {
    const stage = new Stage(byId(id), {
      moved: (stage) => this.moved(stage),
      clicked: (stage, place) => this.click(stage, place),
      failed: (message) => this.tell(message),
    });
    // Of two stages the one under the pointer moves the other.
    byId(id).addEventListener("pointerenter", () => (this.leader = stage));
    byId(id).addEventListener("pointermove", (event) => this.point(stage, event));
    return stage;
  }

  // The stage that keys and buttons move.
  get led() {
    this.leader = this.stage;
    return this.stage;
  }

  // Show a slide, at a view and with layers as an address tells them, or as a whole.
  async open(slide, { view = null, layers = [], outlines = true, compare = "" } = {}) {
    this.slide = slide;
    this.info = null;
    this.objects.open(slide);
    this.outlines = outlines;
    this.choose(null);
    for (const part of this.parts) part.opened?.();
    byId("name").textContent = this.slides[slide].name;
    document.title = `${this.slides[slide].name} \u2013 gsd view`;
    markCurrent(slide);
    let info;
    try {
      info = await (await ask(`slides/${slide}`)).json();
    } catch (error) {
      if (this.slide === slide) {
        for (const stage of this.stages()) stage.close();
        this.layers = [];
        this.fillPanel();
        this.tell(error.message, Infinity);
      }
      return;
    }
    if (this.slide !== slide) return;
    this.quiet();
    this.layers = [];
    this.told = { layers, compare };
    this.compare.reset();
    this.addLayers(info.layers.map((layer, index) => new Layer(index, layer)));
    await this.stage.open(slide, info);
    if (this.slide !== slide) return;
    this.info = info;
    if (view) this.stage.goTo(view);
    await this.showLayers();
    for (const part of this.parts) part.opened?.();
    this.moved(this.stage);
  }

  // Lay more over the slide, as its address has told.
  addLayers(layers) {
    this.layers.push(...layers);
    for (const layer of layers) layer.word = this.told.layers[layer.index] ?? "";
    if (!this.compare.mode) this.compare.read(this.told.compare, this.layers.length);
    this.fillPanel();
  }

  stages() {
    return this.other && this.compare.mode === "side" ? [this.stage, this.other] : [this.stage];
  }

  step(by) {
    const slide = this.slide + by;
    if (slide >= 0 && slide < this.slides.length) this.open(slide);
  }

  // Layers with the side that they are shown on, of a stage.
  shownOn(stage) {
    const { mode, left, right } = this.compare;
    const of = (index, side = "") => ({ layer: this.layers[index], side });
    if (mode === "swipe") return [of(left, "left"), of(right, "right")];
    if (mode === "side") return [of(stage === this.stage ? left : right)];
    return this.layers.filter((layer) => layer.visible).map((layer) => of(layer.index));
  }

  async showLayers() {
    if (!this.info) return;
    const { slide } = this;
    const two = this.compare.mode === "side";
    byId("other").hidden = !two;
    this.compare.place();
    if (two) {
      this.other ??= this.newStage("other");
      if (this.other.info !== this.info) await this.other.open(slide, this.info);
      if (this.slide !== slide) return;
    }
    for (const stage of this.stages()) {
      stage.border = this.compare.border;
      const shown = this.shownOn(stage);
      const rasters = shown.map(({ layer, side }) => ({
        key: `${layer.index}/${layer.plane}/${side}`,
        opacity: layer.opacity,
        side,
        source: (number, info) => layer.source(number, info),
      }));
      const masks = this.outlines ? shown.filter(({ layer }) => layer.hasObjects) : [];
      const outlines = masks.filter(({ layer }) => this.objects.ready(layer)).map(
        ({ layer, side }) => ({
          key: `outlines/${layer.index}/${side}`,
          opacity: 1,
          side,
          source: (number, info) => new OutlineSource(number, info, layer),
        }),
      );
      await stage.show([...rasters, ...outlines]);
    }
    if (two) this.moved(this.stage);
  }

  fillPanel() {
    const sections = this.layers.map((layer) => layerSection(layer, (what) => this.changed(what)));
    if (this.layers.some((layer) => layer.hasObjects)) sections.unshift(this.outlinesSection());
    if (this.layers.length > 1) sections.unshift(this.compare.section(this.layers));
    if (!sections.length) sections.push(element("p", {}, "This slide has no mask."));
    const plugged = this.parts.map((part) => part.section?.()).filter(Boolean);
    refill(byId("panel"), [...plugged, ...sections]);
  }

  outlinesSection() {
    const input = element("input", { type: "checkbox", checked: this.outlines, id: "outlines" });
    input.onchange = () => this.toggleOutlines();
    this.tellObjects();
    const label = element("label", {}, input, "Outlines of objects");
    return element("fieldset", {}, label, this.objectLines);
  }

  // Apart from the panel, which would be filled anew under a hand that moves a slider in it.
  tellObjects() {
    const lines = this.layers
      .map((layer) => [layer.info.name, this.objects.told(layer)])
      .filter(([, told]) => told)
      .map(([name, told]) => element("small", {}, `${name}: ${told}`));
    this.objectLines.replaceChildren(...lines);
  }

  toggleOutlines() {
    this.outlines = !this.outlines;
    this.fillPanel();
    this.changed("layers");
  }

  changed(what) {
    if (what === "colours") for (const stage of this.stages()) stage.redraw();
    else this.showLayers();
    this.moved(this.stage);
  }

  // Hide all layers, or show again those that were seen.
  toggleLayers() {
    const seen = this.layers.filter((layer) => layer.visible);
    const again = this.before?.filter((layer) => this.layers.includes(layer)) ?? [];
    const shown = seen.length ? [] : again.length ? again : this.layers.slice(0, 1);
    this.before = seen;
    for (const layer of this.layers) layer.visible = shown.includes(layer);
    this.fillPanel();
    this.changed("layers");
  }

  fade(by) {
    for (const layer of this.layers.filter((layer) => layer.visible)) {
      layer.opacity = Math.min(Math.max(layer.opacity + by, 0), 1);
    }
    this.fillPanel();
    this.changed("layers");
  }

  moved(stage) {
    if (!this.info) return;
    this.stage.border = this.compare.border;
    if (this.compare.mode === "swipe") this.stage.clip();
    if (stage === this.leader) {
      for (const other of this.stages()) {
        if (other !== stage && other.info === this.info) other.goTo(stage.view(true));
      }
    }
    showScale(this.stage.zoom(), this.info.mpp);
    for (const part of this.parts) part.moved?.();
    clearTimeout(this.writing);
    this.writing = setTimeout(() => writeAddress({
      slide: this.slide,
      view: this.stage.view(),
      layers: this.layers,
      outlines: this.outlines,
      compare: this.compare.word,
    }), ADDRESS_MS);
  }

  // Tell what is under the pointer.
  point(stage, event) {
    if (!this.info || stage.info !== this.info) return;
    const { x, y } = stage.pixelAt(event);
    const inside = x >= 0 && y >= 0 && x < this.info.width && y < this.info.height;
    const { mpp } = this.info;
    const place = mpp === null ? "" : ` (${number((x * mpp) / 1000)}, ${number((y * mpp) / 1000)} mm)`;
    byId("place").textContent = inside ? `${x}, ${y} px${place}` : "";
  }

  // Tell of the object at a place of the slide, of the topmost mask that has one.
  async click(stage, place) {
    const { slide } = this;
    const isRight = place.x > stage.pixelAtShare(this.compare.border);
    const masks = this.shownOn(stage)
      .filter(({ layer, side }) => layer.hasObjects && (!side || (side === "right") === isRight))
      .map(({ layer }) => layer)
      .reverse();
    let found = null;
    try {
      for (const layer of masks) found ??= await this.objects.at(layer, place);
    } catch (error) {
      this.tell(error.message);
    }
    if (this.slide === slide) this.choose(found, stage);
  }

  choose(found, on) {
    for (const stage of this.stages()) stage.mark(found && stage === on ? found.rings : null);
    byId("object").hidden = found === null;
    byId("object").replaceChildren(...(found ? [describe(found)] : []));
  }

  tell(message, milliseconds = MESSAGE_MS) {
    byId("message").textContent = message;
    byId("message").hidden = false;
    clearTimeout(this.quieting);
    if (milliseconds < Infinity) this.quieting = setTimeout(() => this.quiet(), milliseconds);
  }

  quiet() {
    byId("message").hidden = true;
  }
}

// Where the screen is narrow, the list and the panel lie over the slide: one at a time.
const isNarrow = matchMedia("(max-width: 900px)");

function toggle(name, shown = byId(name).hidden) {
  byId(name).hidden = !shown;
  byId(`${name}-button`).setAttribute("aria-expanded", String(shown));
  if (shown && isNarrow.matches) toggle(name === "list" ? "panel" : "list", false);
}

const slides = await (await ask("slides")).json();
const page = new Page(slides);
byId("zoom-in").onclick = () => page.led.zoomBy(1.5);
byId("zoom-out").onclick = () => page.led.zoomBy(1 / 1.5);
byId("zoom-home").onclick = () => page.led.home();
byId("zoom-native").onclick = () => page.led.native();
byId("panel-button").onclick = () => toggle("panel");
byId("list-button").onclick = () => toggle("list");
byId("help-button").onclick = () => byId("help").showModal();
fillList(slides, (slide) => page.open(slide));
if (slides.length > 1) {
  byId("list-button").hidden = false;
  toggle("list", true);
}
for (const name of await (await ask("parts")).json()) {
  page.parts.push((await import(`./${name}/part.js`)).plug(page));
}
answerKeys(page);
const reopen = () => {
  const told = readAddress();
  return page.open(told.slide < slides.length ? told.slide : 0, told);
};
window.addEventListener("hashchange", reopen);
await reopen();

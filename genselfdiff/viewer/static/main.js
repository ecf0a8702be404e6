// The page: which slide is shown, with which layers, and what its controls do.

import { readAddress, writeAddress } from "./address.js";
import { ask, byId, element } from "./dom.js";
import { answerKeys } from "./keys.js";
import { Layer, layerSection } from "./layers.js";
import { number, showScale } from "./scale.js";
import { fillList, markCurrent } from "./slide_list.js";
import { Stage } from "./stage.js";

const ADDRESS_MS = 200;

const MESSAGE_MS = 8000;

class Page {
  constructor(slides) {
    this.slides = slides;
    this.layers = [];
    const told = { moved: () => this.moved(), failed: (message) => this.tell(message) };
    this.stage = new Stage(byId("stage"), told);
    byId("stages").addEventListener("pointermove", (event) => this.point(event));
  }

  // Show a slide, at a view and with layers as an address tells them, or as a whole.
  async open(slide, { view = null, layers = [] } = {}) {
    this.slide = slide;
    this.info = null;
    byId("name").textContent = this.slides[slide].name;
    document.title = `${this.slides[slide].name} \u2013 gsd view`;
    markCurrent(slide);
    let info;
    try {
      info = await (await ask(`slides/${slide}`)).json();
    } catch (error) {
      if (this.slide === slide) {
        this.stage.viewer.close();
        this.layers = [];
        this.fillPanel();
        this.tell(error.message, Infinity);
      }
      return;
    }
    if (this.slide !== slide) return;
    this.quiet();
    this.layers = info.layers.map((layer, index) => new Layer(index, layer));
    layers.forEach((word, index) => this.layers[index] && (this.layers[index].word = word));
    this.fillPanel();
    await this.stage.open(slide, info);
    this.info = info;
    if (view) this.stage.view = view;
    await this.showLayers();
    this.moved();
  }

  step(by) {
    const slide = this.slide + by;
    if (slide >= 0 && slide < this.slides.length) this.open(slide);
  }

  async showLayers() {
    await this.stage.show(this.layers.filter((layer) => layer.visible));
  }

  fillPanel() {
    const sections = this.layers.map((layer) => layerSection(layer, (what) => this.changed(what)));
    const none = element("p", {}, "This slide has no mask.");
    byId("panel").replaceChildren(...(sections.length ? sections : [none]));
  }

  changed(what) {
    if (what === "colours") this.stage.recolour();
    else this.showLayers();
    this.moved();
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

  moved() {
    if (!this.info) return;
    showScale(this.stage.zoom(), this.info.mpp);
    clearTimeout(this.writing);
    this.writing = setTimeout(() => writeAddress({
      slide: this.slide,
      view: this.stage.view,
      layers: this.layers,
    }), ADDRESS_MS);
  }

  // Tell what is under the pointer.
  point(event) {
    if (!this.info) return;
    const { x, y } = this.stage.pixelAt(event);
    const inside = x >= 0 && y >= 0 && x < this.info.width && y < this.info.height;
    const { mpp } = this.info;
    const place = mpp === null ? "" : ` (${number((x * mpp) / 1000)}, ${number((y * mpp) / 1000)} mm)`;
    byId("place").textContent = inside ? `${x}, ${y} px${place}` : "";
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

function toggle(button, what, shown = what.hidden) {
  what.hidden = !shown;
  button.setAttribute("aria-expanded", String(shown));
}

const slides = await (await ask("slides")).json();
const page = new Page(slides);
byId("zoom-in").onclick = () => page.stage.zoomBy(1.5);
byId("zoom-out").onclick = () => page.stage.zoomBy(1 / 1.5);
byId("zoom-home").onclick = () => page.stage.home();
byId("zoom-native").onclick = () => page.stage.native();
byId("panel-button").onclick = () => toggle(byId("panel-button"), byId("panel"));
byId("list-button").onclick = () => toggle(byId("list-button"), byId("list"));
byId("help-button").onclick = () => byId("help").showModal();
fillList(slides, (slide) => page.open(slide));
if (slides.length > 1) {
  byId("list-button").hidden = false;
  toggle(byId("list-button"), byId("list"), true);
}
answerKeys(page);
const reopen = () => {
  const told = readAddress();
  return page.open(told.slide < slides.length ? told.slide : 0, told);
};
window.addEventListener("hashchange", reopen);
await reopen();

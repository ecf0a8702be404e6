// A slide that can be zoomed into, with layers over it.

/* global OpenSeadragon */

import { element } from "./dom.js";
import { SlideSource } from "./tile_sources.js";

// Tiles that were given up are no failures to tell of.
const told = OpenSeadragon.console.error.bind(OpenSeadragon.console);
OpenSeadragon.console = Object.assign({}, OpenSeadragon.console, {
  error: (text, ...rest) => String(rest.at(-1)).includes("given up") || told(text, ...rest),
  warn: () => {},
});

// Screen pixels that a pixel of the slide may be blown up to.
const LARGEST = 16;

const PRUNE_MS = 100;

export class Stage {
  // `moved` is called whenever another part of the slide is seen, `clicked` with a place of the
  // slide, `failed` with what went wrong.
  constructor(place, { moved, clicked, failed }) {
    this.viewer = new OpenSeadragon.Viewer({
      element: place,
      drawer: "canvas",
      showNavigationControl: false,
      animationTime: 0.4,
      blendTime: 0,
      immediateRender: true,
      maxImageCacheCount: 250,
      visibilityRatio: 0.3,
      minZoomImageRatio: 0.6,
      maxZoomPixelRatio: LARGEST,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      gestureSettingsTouch: { clickToZoom: false, pinchRotate: false },
      gestureSettingsPen: { clickToZoom: false },
    });
    // Keys are the page's, see keys.js.
    this.viewer.innerTracker.keyHandler = null;
    this.viewer.innerTracker.keyDownHandler = null;
    this.viewer.canvas.setAttribute("aria-label", "Slide; arrow keys move it, plus and minus zoom");
    this.images = new Map();
    this.border = 0.5;
    this.marked = null;
    this.keptOut = [];
    const marks = element("canvas", { className: "marks" });
    this.viewer.canvas.append(marks);
    this.marks = marks.getContext("2d");
    let last = 0;
    this.viewer.addHandler("update-viewport", () => {
      if (this.marked) this.drawMark();
      if (performance.now() - last < PRUNE_MS) return;
      last = performance.now();
      for (const { source } of this.all()) source.giveUpUnseen(this.viewer.viewport);
    });
    for (const event of ["viewport-change", "resize"]) {
      this.viewer.addHandler(event, () => {
        this.clip();
        moved(this);
      });
    }
    this.viewer.addHandler("canvas-click", ({ quick, originalEvent }) => {
      if (quick && this.info) clicked(this, this.pixelAt(originalEvent));
    });
    this.viewer.addHandler("tile-load-failed", ({ message }) => {
      if (message !== "given up") failed(message);
    });
  }

  // Show another slide; resolves once its place is known.
  async open(number, info) {
    this.number = number;
    this.images.clear();
    this.close();
    this.info = info;
    const item = await this.add({ tileSource: new SlideSource(number, info) });
    if (this.number !== number) this.viewer.world.removeItem(item);
  }

  close() {
    this.info = null;
    for (const { source } of this.all()) source.giveUpAll();
    this.mark(null);
    this.viewer.close();
  }

  all() {
    const world = this.viewer.world;
    return Array.from({ length: world.getItemCount() }, (_, i) => world.getItemAt(i));
  }

  add(options) {
    return new Promise((done, failed) => {
      this.viewer.addTiledImage({
        ...options,
        x: 0,
        y: 0,
        width: 1,
        success: ({ item }) => done(item),
        error: ({ message }) => failed(new Error(message)),
      });
    });
  }

  // Show these layers and no others, the last on top; each has key, opacity, side and a source.
  async show(layers) {
    const { number, info } = this;
    const { world } = this.viewer;
    const wanted = new Set(layers.map(({ key }) => key));
    for (const [key, image] of this.images) {
      if (wanted.has(key)) continue;
      this.images.delete(key);
      const item = await image;
      item.source.giveUpAll();
      world.removeItem(item);
    }
    let place = 0;
    for (const { key, opacity, side, source } of layers) {
      if (!this.images.has(key)) {
        const tileSource = Object.assign(source(number, info), { side });
        this.images.set(key, this.add({ tileSource, opacity }));
      }
      const image = await this.images.get(key);
      if (this.number !== number || !this.images.has(key)) return;
      image.setOpacity(opacity);
      world.setItemIndex(image, Math.min(++place, world.getItemCount() - 1));
    }
    this.clip();
    this.cut();
  }

  // Draw the layers' tiles anew.
  redraw() {
    for (const { source } of this.all()) source.redraw?.();
    this.viewer.forceRedraw();
  }

  // Let what is for the left end, and what is for the right begin, at `border` of the width.
  clip() {
    if (!this.info) return;
    const { width, height } = this.info;
    const at = Math.min(Math.max(this.pixelAtShare(this.border), 0), width);
    for (const image of this.all()) {
      const { side } = image.source;
      if (!side) continue;
      const scale = image.source.width / width;
      const [from, to] = side === "left" ? [0, at] : [at, width];
      image.setClip(new OpenSeadragon.Rect(from * scale, 0, (to - from) * scale, height * scale));
    }
  }

  // Show no layer in these boxes of the slide's pixels: something else is drawn there.
  keepOut(boxes) {
    this.keptOut = boxes;
    this.cut();
  }

  cut() {
    if (!this.info) return;
    for (const image of this.all()) {
      if (!image.source.layer) continue;
      const scale = image.source.width / this.info.width;
      // A hole is what goes around the other way.
      const ring = ({ x, y, width, height }, isHole) => {
        const corners = [[x, y], [x + width, y], [x + width, y + height], [x, y + height]];
        if (isHole) corners.reverse();
        return corners.map(([x, y]) => ({ x: x * scale, y: y * scale }));
      };
      const whole = { x: 0, y: 0, width: this.info.width, height: this.info.height };
      if (this.keptOut.length) {
        const holes = this.keptOut.map((box) => ring(box, true));
        image.setCroppingPolygons([ring(whole, false), ...holes]);
      } else image.resetCroppingPolygons();
    }
  }

  // Mark an object by its rings, in pixels of the slide; null: none.
  mark(rings) {
    this.marked = rings;
    this.drawMark();
  }

  drawMark() {
    const { canvas } = this.marks;
    const size = this.viewer.viewport.getContainerSize();
    canvas.width = size.x;
    canvas.height = size.y;
    if (!this.marked) return;
    const { left, top, scale } = this.transform();
    this.marks.beginPath();
    for (const ring of this.marked) {
      ring.forEach(([x, y], i) => {
        this.marks[i ? "lineTo" : "moveTo"](left + x * scale, top + y * scale);
      });
    }
    for (const [colour, width] of [["#000", 5], ["#ffe34d", 3]]) {
      this.marks.strokeStyle = colour;
      this.marks.lineWidth = width;
      this.marks.stroke();
    }
  }

  // The middle of what is seen in pixels of the slide, and how large one of them is on the screen;
  // where it comes to rest, or where it is now.
  view(now = false) {
    const { viewport } = this.viewer;
    const { x, y } = viewport.getCenter(now);
    const { width } = this.info;
    return { x: x * width, y: y * width, zoom: this.zoom(viewport.getZoom(now)) };
  }

  goTo({ x, y, zoom }) {
    const { width } = this.info;
    const { viewport } = this.viewer;
    viewport.panTo(new OpenSeadragon.Point(x / width, y / width), true);
    viewport.zoomTo((zoom * width) / viewport.getContainerSize().x, null, true);
  }

  // Screen pixels of a pixel of the slide, at a zoom of OpenSeadragon's.
  zoom(zoom = this.viewer.viewport.getZoom(true)) {
    return (zoom * this.viewer.viewport.getContainerSize().x) / this.info.width;
  }

  zoomBy(factor) {
    this.viewer.viewport.zoomBy(factor);
    this.viewer.viewport.applyConstraints();
  }

  panBy(x, y) {
    const { viewport } = this.viewer;
    viewport.panBy(viewport.deltaPointsFromPixels(new OpenSeadragon.Point(x, y)));
    viewport.applyConstraints();
  }

  home() {
    this.viewer.viewport.goHome();
  }

  native() {
    const { viewport } = this.viewer;
    viewport.zoomTo(this.info.width / viewport.getContainerSize().x);
  }

  // The column of the slide at a share of the stage's width.
  pixelAtShare(share) {
    const { x, width } = this.viewer.viewport.getBounds(true);
    return (x + share * width) * this.info.width;
  }

  // The place in the slide, in its pixels, at a place of the page; and the pixel there.
  placeAt(event) {
    const box = this.viewer.element.getBoundingClientRect();
    const at = new OpenSeadragon.Point(event.clientX - box.left, event.clientY - box.top);
    const { x, y } = this.viewer.viewport.pointFromPixel(at, true);
    return { x: x * this.info.width, y: y * this.info.width };
  }

  pixelAt(event) {
    const { x, y } = this.placeAt(event);
    return { x: Math.floor(x), y: Math.floor(y) };
  }

  // How places of the slide come to the screen: x * scale + left, y * scale + top.
  transform() {
    const from = this.viewer.viewport.pixelFromPoint(new OpenSeadragon.Point(0, 0), true);
    return { left: from.x, top: from.y, scale: this.zoom() };
  }
}

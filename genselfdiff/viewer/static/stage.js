// A slide that can be zoomed into, with layers over it.

/* global OpenSeadragon */

import { ByteSource, SlideSource } from "./tile_sources.js";

// Tiles that were given up are no failures to tell of.
const told = OpenSeadragon.console.error.bind(OpenSeadragon.console);
OpenSeadragon.console = Object.assign({}, OpenSeadragon.console, {
  error: (text, ...rest) => String(rest.at(-1)).includes("given up") || told(text, ...rest),
});

// Screen pixels that a pixel of the slide may be blown up to.
const LARGEST = 16;

const PRUNE_MS = 100;

export class Stage {
  // `moved` is called whenever another part of the slide is seen, `failed` with what went wrong.
  constructor(place, { moved, failed }) {
    this.viewer = new OpenSeadragon.Viewer({
      element: place,
      drawer: "canvas",
      showNavigationControl: false,
      animationTime: 0.4,
      blendTime: 0,
      immediateRender: true,
      maxImageCacheCount: 400,
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
    this.byMove = true;
    let last = 0;
    this.viewer.addHandler("update-viewport", () => {
      if (performance.now() - last < PRUNE_MS) return;
      last = performance.now();
      for (const { source } of this.all()) source.giveUpUnseen(this.viewer.viewport);
    });
    this.viewer.addHandler("viewport-change", () => moved(this));
    this.viewer.addHandler("resize", () => moved(this));
    this.viewer.addHandler("tile-load-failed", ({ message }) => {
      if (message !== "given up") failed(message);
    });
  }

  // Show another slide; resolves once its place is known.
  async open(number, info) {
    this.number = number;
    this.info = info;
    this.images.clear();
    this.viewer.close();
    await this.add({ tileSource: new SlideSource(number, info) });
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

  // Show these layers and no others, the last on top; each has index, plane, opacity, colours.
  async show(layers) {
    const { number } = this;
    const wanted = new Set(layers.map(keyOf));
    for (const [key, image] of this.images) {
      if (!wanted.has(key)) {
        this.images.delete(key);
        this.viewer.world.removeItem(await image);
      }
    }
    for (const layer of layers) {
      const key = keyOf(layer);
      if (!this.images.has(key)) {
        const source = layer.source?.(number, this.info) ??
          new ByteSource(number, this.info, layer.index, layer.plane, layer.colours);
        this.images.set(key, this.add({ tileSource: source, opacity: layer.opacity }));
      }
      const image = await this.images.get(key);
      if (this.number !== number) return;
      image.setOpacity(layer.opacity);
    }
    this.clip(this.border);
  }

  // Colour the layers' tiles anew.
  recolour() {
    for (const { source } of this.all()) source.recolour?.();
    this.viewer.forceRedraw();
  }

  // Let the first of two layers end, and the second begin, at a part of the stage's width.
  clip(border) {
    this.border = border;
    const images = this.all().slice(1);
    if (border === undefined || images.length === 0) {
      for (const image of images) if (image.getClip()) image.setClip(null);
      return;
    }
    const { width, height } = this.info;
    const { x, width: across } = this.viewer.viewport.getBounds(true);
    const at = Math.min(Math.max((x + across * border) * width, 0), width);
    for (const image of images) {
      const isLeft = image.source.side !== "right";
      const rectangle = isLeft
        ? new OpenSeadragon.Rect(0, 0, at, height)
        : new OpenSeadragon.Rect(at, 0, width - at, height);
      image.setClip(rectangle);
    }
  }

  // The middle of what is seen in pixels of the slide, and how large one of them is on the screen.
  get view() {
    const { viewport } = this.viewer;
    const { x, y } = viewport.getCenter();
    const { width } = this.info;
    return { x: x * width, y: y * width, zoom: this.zoom(viewport.getZoom()) };
  }

  set view({ x, y, zoom }) {
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

  // The pixel of the slide at a place of the page.
  pixelAt(event) {
    const box = this.viewer.element.getBoundingClientRect();
    const at = new OpenSeadragon.Point(event.clientX - box.left, event.clientY - box.top);
    const { x, y } = this.viewer.viewport.pointFromPixel(at, true);
    return { x: Math.floor(x * this.info.width), y: Math.floor(y * this.info.width) };
  }
}

function keyOf({ index, plane, side = "" }) {
  return `${index}/${plane}/${side}`;
}

// The tiles of the server as OpenSeadragon asks for them. Its levels count from the smallest
// picture, the server's from the largest.

/* global OpenSeadragon */

import { ask } from "./dom.js";

// Beside the view, in its widths: tiles that far away are still waited for.
const MARGIN = 0.25;

class Source extends OpenSeadragon.TileSource {
  constructor(width, height, tileSize, address) {
    const maxLevel = Math.ceil(Math.log2(Math.max(width, height)));
    // Pictures smaller than one tile need not be asked for one by one.
    const minLevel = Math.max(0, maxLevel - Math.ceil(Math.log2(Math.max(width, height) / tileSize)));
    super({ width, height, tileSize, tileOverlap: 0, minLevel: Math.min(minLevel, maxLevel), maxLevel });
    this.address = address;
    this.awaited = new Map();
  }

  getTileUrl(level, x, y) {
    return `${this.address}/${this.maxLevel - level}/${x}/${y}`;
  }

  downloadTileStart(context) {
    const stop = new AbortController();
    this.awaited.set(context, stop);
    this.download(context, stop.signal)
      .then(([data, type]) => context.finish(data, null, type))
      .catch((error) => context.fail(stop.signal.aborted ? "given up" : error.message, null))
      .finally(() => this.awaited.delete(context));
  }

  downloadTileAbort(context) {
    this.awaited.get(context)?.abort();
  }

  async picture(context, signal) {
    return createImageBitmap(await (await ask(context.src, signal)).blob());
  }

  giveUpAll() {
    for (const stop of this.awaited.values()) stop.abort();
  }

  // Give up tiles that nobody would see any more.
  giveUpUnseen(viewport) {
    const seen = viewport.getBounds();
    const finest = this.maxLevel + Math.log2(viewport.getContainerSize().x / (seen.width * this.width));
    for (const [{ tile }, stop] of this.awaited) {
      const { x, y, width, height } = tile.bounds;
      const margin = MARGIN * seen.width;
      const beside =
        x > seen.x + seen.width + margin || x + width < seen.x - margin ||
        y > seen.y + seen.height + margin || y + height < seen.y - margin;
      if (beside || tile.level > finest + 2) {
        stop.abort();
        // OpenSeadragon would not ask again for a tile that has failed.
        setTimeout(() => (tile.exists = true));
      }
    }
  }
}

export class SlideSource extends Source {
  constructor(number, info) {
    super(info.width, info.height, info.tile, `slides/${number}/tiles`);
  }

  async download(context, signal) {
    return [await this.picture(context, signal), "imageBitmap"];
  }

  hasTransparency() {
    return false;
  }
}

// Tiles that are drawn here, and drawn anew in place when the layer's classes or colours change.
export class DrawnSource extends Source {
  constructor(width, height, tileSize, address, layer) {
    super(width, height, tileSize, address);
    this.layer = layer;
    this.tiles = new Set();
  }

  add(width, height, drawing) {
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const tile = { context: canvas.getContext("2d"), ...drawing };
    this.draw(tile);
    this.tiles.add(tile);
    return [tile.context, "context2d"];
  }

  hasTransparency() {
    return true;
  }

  redraw() {
    for (const tile of this.tiles) {
      // OpenSeadragon shrinks what it has dropped to nothing.
      if (tile.context.canvas.width) this.draw(tile);
      else this.tiles.delete(tile);
    }
  }
}

// What a grey picture holds, and where it holds anything: 255, else 0.
export function bytesOf(picture) {
  const { width, height } = picture;
  const canvas = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  canvas.drawImage(picture, 0, 0);
  const { data } = canvas.getImageData(0, 0, width, height);
  const bytes = new Uint8Array(width * height);
  const known = new Uint8Array(width * height);
  for (let i = 0; i < bytes.length; i++) {
    bytes[i] = data[4 * i];
    known[i] = data[4 * i + 3];
  }
  return { width, height, bytes, known };
}

// One byte a pixel: a class, or a probability.
export class ByteSource extends DrawnSource {
  constructor(number, info, layer) {
    const address = `slides/${number}/layers/${layer.index}/${layer.plane}`;
    super(info.width, info.height, info.layer_tile, address, layer);
  }

  async download(context, signal) {
    const { width, height, bytes } = bytesOf(await this.picture(context, signal));
    return this.add(width, height, { bytes });
  }

  draw({ context, bytes }) {
    const { width, height } = context.canvas;
    const pixels = new ImageData(width, height);
    const words = new Uint32Array(pixels.data.buffer);
    for (let i = 0; i < words.length; i++) words[i] = this.layer.colours[bytes[i]];
    context.putImageData(pixels, 0, 0);
  }
}

const LINE = 2;

// Outlines of objects: lines as the server packs them, see object_index.py.
export class OutlineSource extends DrawnSource {
  constructor(number, info, layer) {
    const address = `slides/${number}/objects/${layer.index}`;
    super(info.width * info.enlarged, info.height * info.enlarged, info.outline_tile, address, layer);
  }

  async download(context, signal) {
    const data = await (await ask(context.src, signal)).arrayBuffer();
    const [lines, corners] = new Uint32Array(data, 0, 2);
    const { width, height } = context.tile.sourceBounds;
    return this.add(width, height, {
      corners: new Float32Array(data, 8, 2 * corners),
      starts: new Uint32Array(data, 8 + 8 * corners, lines),
      labels: new Uint8Array(data, 8 + 8 * corners + 4 * lines, lines),
    });
  }

  draw({ context, corners, starts, labels }) {
    context.clearRect(0, 0, context.canvas.width, context.canvas.height);
    context.lineWidth = LINE;
    context.lineJoin = "round";
    // Where two classes meet, both edges are one line: the higher class is seen.
    for (const label of [...new Set(labels)].sort((a, b) => a - b)) {
      if (this.layer.hidden.has(label)) continue;
      context.beginPath();
      for (let line = 0; line < starts.length; line++) {
        if (labels[line] !== label) continue;
        const end = line + 1 < starts.length ? starts[line + 1] : corners.length / 2;
        context.moveTo(corners[2 * starts[line]], corners[2 * starts[line] + 1]);
        for (let i = starts[line] + 1; i < end; i++) context.lineTo(corners[2 * i], corners[2 * i + 1]);
      }
      context.strokeStyle = this.layer.lineColour(label);
      context.stroke();
    }
  }
}

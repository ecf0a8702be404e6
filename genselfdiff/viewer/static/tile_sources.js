// The tiles of the server as OpenSeadragon asks for them. Its levels count from the smallest
// picture, the server's from the largest.

/* global OpenSeadragon */

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
      .catch((error) => context.fail(error.name === "AbortError" ? "given up" : String(error), null))
      .finally(() => this.awaited.delete(context));
  }

  downloadTileAbort(context) {
    this.awaited.get(context)?.abort();
  }

  async picture(context, signal) {
    const answer = await fetch(context.src, { signal });
    if (!answer.ok) throw new Error(await answer.text());
    return createImageBitmap(await answer.blob());
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

// One byte a pixel, coloured here: `colours` has what each byte is shown as, as 32 bits of RGBA.
export class ByteSource extends Source {
  constructor(number, info, layer, plane, colours) {
    super(info.width, info.height, info.layer_tile, `slides/${number}/layers/${layer}/${plane}`);
    this.colours = colours;
    this.tiles = new Set();
  }

  async download(context, signal) {
    const picture = await this.picture(context, signal);
    const { width, height } = picture;
    const canvas = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    canvas.drawImage(picture, 0, 0);
    const grey = canvas.getImageData(0, 0, width, height).data;
    const bytes = new Uint8Array(width * height);
    for (let i = 0; i < bytes.length; i++) bytes[i] = grey[4 * i];
    const shown = document.createElement("canvas");
    shown.width = width;
    shown.height = height;
    const tile = { canvas: shown.getContext("2d"), bytes, width, height };
    this.colour(tile);
    this.tiles.add(tile);
    return [tile.canvas, "context2d"];
  }

  hasTransparency() {
    return true;
  }

  // Colour the tiles that are there anew, in place.
  recolour() {
    for (const tile of this.tiles) {
      // OpenSeadragon shrinks what it has dropped to nothing.
      if (tile.canvas.canvas.width) this.colour(tile);
      else this.tiles.delete(tile);
    }
  }

  colour({ canvas, bytes, width, height }) {
    const pixels = new ImageData(width, height);
    const words = new Uint32Array(pixels.data.buffer);
    for (let i = 0; i < words.length; i++) words[i] = this.colours[bytes[i]];
    canvas.putImageData(pixels, 0, 0);
  }
}

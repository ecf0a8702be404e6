// Tiles of what is predicted while somebody looks: parts of them come later.

import { ask } from "../dom.js";
import { bytesOf, DrawnSource } from "../tile_sources.js";

const STRIPE = 8;

const STRIPE_COLOURS = [0x30ffffff, 0x30000000];

export class LiveSource extends DrawnSource {
  constructor(number, info, layer) {
    const address = `live/${number}/${layer.model}`;
    super(info.width, info.height, info.layer_tile, address, layer);
    this.put = [];
  }

  tileExists(level, x, y) {
    return this.maxLevel - level <= this.layer.coarsest && super.tileExists(level, x, y);
  }

  async download(context, signal) {
    const { level, x, y } = context.tile;
    const before = this.put.length;
    const told = bytesOf(await this.picture(context, signal));
    const at = { src: context.src, level: this.maxLevel - level, x, y };
    const made = this.add(told.width, told.height, { ...told, ...at });
    this.refresh([...this.tiles].slice(-1), this.put.slice(before));
    return made;
  }

  // Take it that blocks were predicted, each told by its column and row.
  update(blocks) {
    this.put.push(...blocks);
    return this.refresh([...this.tiles], blocks);
  }

  // Get those of `tiles` anew that show `blocks`; gives whether there are any.
  async refresh(tiles, blocks) {
    const sets = new Map();
    const stale = tiles.filter(({ context, level, x, y }) => {
      if (!context.canvas.width) return false;
      if (!sets.has(level)) {
        sets.set(level, new Set(blocks.map(([column, row]) => `${column >> level}/${row >> level}`)));
      }
      return sets.get(level).has(`${x}/${y}`);
    });
    await Promise.all(stale.map(async (tile) => {
      const picture = await createImageBitmap(await (await ask(tile.src)).blob());
      Object.assign(tile, bytesOf(picture));
      this.draw(tile);
    }));
    return stale.length > 0;
  }

  // Striped where it is being predicted.
  draw({ context, bytes, known }) {
    const { width, height } = context.canvas;
    if (!width) return;
    const pixels = new ImageData(width, height);
    const words = new Uint32Array(pixels.data.buffer);
    const { colours, working } = this.layer;
    for (let i = 0; i < words.length; i++) {
      if (known[i]) words[i] = colours[bytes[i]];
      else if (working) {
        const across = i % width;
        words[i] = STRIPE_COLOURS[((across + (i - across) / width) / STRIPE) & 1];
      }
    }
    context.putImageData(pixels, 0, 0);
  }
}

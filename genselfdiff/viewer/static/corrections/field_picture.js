// What is drawn in a field, pixel by pixel as the server has it, and as a picture.

import { ask } from "../dom.js";

export const IGNORED = 255;

const INSIDE = 110;
const GREY = 120;

export class FieldPicture {
  constructor(slide, field) {
    this.slide = slide;
    Object.assign(this, field);
    // Of each pixel: its class, and the number of its object.
    this.values = new Uint32Array(this.width * this.height);
    const size = { width: this.width, height: this.height };
    this.canvas = Object.assign(document.createElement("canvas"), size);
    this.context = this.canvas.getContext("2d");
  }

  // Ask for a box of it anew: x, y, width and height.
  async refresh(colours, [x, y, width, height] = [0, 0, this.width, this.height]) {
    if (!width || !height) return;
    const address = `corrections/${this.slide}/fields/${this.id}/${x}/${y}/${width}/${height}`;
    const blob = await (await ask(address)).blob();
    const picture = await createImageBitmap(blob, { colorSpaceConversion: "none" });
    const canvas = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    canvas.drawImage(picture, 0, 0);
    const words = new Uint32Array(canvas.getImageData(0, 0, width, height).data.buffer);
    for (let row = 0; row < height; row++) {
      const part = words.subarray(row * width, (row + 1) * width);
      this.values.set(part, (y + row) * this.width + x);
    }
    this.paint(colours, [x, y, width, height]);
  }

  paint(colours, [x, y, width, height] = [0, 0, this.width, this.height]) {
    // The edge of an object shows in the pixels beside it, too.
    const left = Math.max(x - 1, 0);
    const top = Math.max(y - 1, 0);
    const right = Math.min(x + width + 1, this.width);
    const bottom = Math.min(y + height + 1, this.height);
    const pixels = new ImageData(right - left, bottom - top);
    const words = new Uint32Array(pixels.data.buffer);
    const inside = colours.map(([r, g, b]) => ((INSIDE << 24) | (b << 16) | (g << 8) | r) >>> 0);
    const { values } = this;
    let place = 0;
    for (let row = top; row < bottom; row++) {
      for (let column = left; column < right; column++, place++) {
        const at = row * this.width + column;
        const value = values[at];
        const label = value & 255;
        if (label === 0) continue;
        if (label === IGNORED) {
          if ((row + column) % 8 < 3) words[place] = ((200 << 24) | (GREY * 0x10101)) >>> 0;
          continue;
        }
        // Where two classes meet, the higher one has the edge.
        const differs = (other) => other !== value && (other & 255) <= label;
        const isEdge =
          column === 0 || differs(values[at - 1]) ||
          column + 1 === this.width || differs(values[at + 1]) ||
          row === 0 || differs(values[at - this.width]) ||
          row + 1 === this.height || differs(values[at + this.width]);
        words[place] = isEdge ? (inside[label] | 0xff000000) >>> 0 : inside[label];
      }
    }
    this.context.putImageData(pixels, left, top);
  }

  holds({ x, y }) {
    return x >= this.x && y >= this.y && x < this.x + this.width && y < this.y + this.height;
  }
}

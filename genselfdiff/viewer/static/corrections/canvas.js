// What is drawn, over the slide: fields, strokes that the server has not taken yet, the pointer.

import { element } from "../dom.js";

const DASH = [6, 6];

export class Canvas {
  // `content()` gives what is to be drawn, see `draw`.
  constructor(stage, content) {
    this.stage = stage;
    this.content = content;
    const canvas = element("canvas", { className: "marks drawn" });
    stage.viewer.canvas.append(canvas);
    this.context = canvas.getContext("2d");
    stage.viewer.addHandler("update-viewport", () => this.draw());
    for (const event of ["resize", "close"]) stage.viewer.addHandler(event, () => this.later());
  }

  later() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.draw();
    });
  }

  draw() {
    const { context, stage } = this;
    const { canvas } = context;
    const size = stage.viewer.viewport?.getContainerSize();
    if (!size) return;
    const sharp = window.devicePixelRatio || 1;
    const [width, height] = [size.x, size.y].map((side) => Math.round(side * sharp));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    const content = stage.info && this.content();
    if (!content) return;
    const { left, top, scale } = stage.transform();
    context.setTransform(sharp * scale, 0, 0, sharp * scale, sharp * left, sharp * top);
    context.imageSmoothingEnabled = scale < 1;
    for (const field of content.fields) {
      context.globalAlpha = content.opacity;
      context.drawImage(field.canvas, field.x, field.y);
      context.globalAlpha = 1;
      this.frameOf(field, scale);
    }
    for (const { stroke, field, colour } of content.strokes) this.stroke(stroke, field, colour);
    for (const frame of content.frames) this.frameOf(frame, scale);
    if (content.ring) this.ring(content.ring, scale);
    if (content.pointer) this.circle(content.pointer, scale);
  }

  frameOf({ x, y, width, height }, scale) {
    this.outline(scale, (context) => context.rect(x, y, width, height));
  }

  circle({ x, y, radius }, scale) {
    this.outline(scale, (context) => context.arc(x, y, radius, 0, 2 * Math.PI));
  }

  // The corners of a polygon that is not closed yet.
  ring(points, scale) {
    this.outline(scale, (context) => {
      points.forEach(([x, y], i) => context[i ? "lineTo" : "moveTo"](x, y));
      const [[x, y]] = points;
      context.moveTo(x + 5 / scale, y);
      context.arc(x, y, 5 / scale, 0, 2 * Math.PI);
    });
  }

  // Dark and light dashes, which are seen on everything.
  outline(scale, path) {
    const { context } = this;
    context.lineWidth = 2 / scale;
    context.beginPath();
    path(context);
    context.strokeStyle = "#000";
    context.stroke();
    context.setLineDash(DASH.map((length) => length / scale));
    context.strokeStyle = "#fff";
    context.stroke();
    context.setLineDash([]);
  }

  // About what the server will make of a stroke.
  stroke({ kind, points, radius }, field, colour) {
    const { context } = this;
    context.save();
    context.beginPath();
    context.rect(field.x, field.y, field.width, field.height);
    context.clip();
    context.beginPath();
    points.forEach(([x, y], i) => context[i ? "lineTo" : "moveTo"](x, y));
    if (kind === "polygon") {
      context.fillStyle = colour;
      context.fill("evenodd");
    } else {
      if (points.length === 1) context.lineTo(points[0][0] + 1e-3, points[0][1]);
      context.lineCap = context.lineJoin = "round";
      context.lineWidth = 2 * radius;
      context.strokeStyle = colour;
      context.stroke();
    }
    context.restore();
  }
}

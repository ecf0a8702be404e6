// Mouse, pen and finger on the slide, as long as a tool has them; else they move the slide.

// Screen pixels: so near its first corner a polygon is closed.
const NEAR = 10;

// Between two points of a line, in screen pixels.
const STEP = 1.5;

const DOUBLE_MS = 350;

const MOST_POINTS = 4000;

const KEPT = 100;

export class Pointer {
  // `owner` has `tool`, `radius`, `label` and what to do: `fieldAt(place)`, `framed(box)`,
  // `drawn(stroke, field)`, `moved()`, `outside()`.
  constructor(stage, owner) {
    this.stage = stage;
    this.owner = owner;
    this.forget();
    this.place = null;
    this.held = null;
    this.hasPen = false;
    this.isMoving = false;
    // Fingers that move the slide together, until all are lifted.
    this.fingers = new Set();
    const { element } = stage.viewer;
    // Before OpenSeadragon, which would move the slide.
    element.addEventListener("pointerdown", (event) => this.down(event), true);
    element.addEventListener("pointermove", (event) => this.move(event), true);
    element.addEventListener("pointerup", (event) => this.up(event), true);
    element.addEventListener("pointercancel", (event) => this.cancel(event), true);
    for (const end of ["pointerup", "pointercancel"]) {
      document.addEventListener(end, ({ pointerId }) => this.fingers.delete(pointerId));
    }
    element.addEventListener("pointerleave", () => {
      this.place = null;
      owner.moved();
    });
    document.addEventListener("keydown", ({ key }) => key === " " && this.space(true));
    document.addEventListener("keyup", ({ key }) => key === " " && this.space(false));
  }

  // While the space bar is held the pointer moves the slide.
  space(isDown) {
    this.isMoving = isDown;
    this.owner.moved();
  }

  // Forget what is not finished.
  forget() {
    const had = Boolean(this.stroke || this.corners || this.frame);
    this.stroke = this.corners = this.frame = this.first = this.pressed = null;
    return had;
  }

  at(event) {
    const { x, y } = this.stage.placeAt(event);
    return { x: Math.round(KEPT * x) / KEPT, y: Math.round(KEPT * y) / KEPT };
  }

  takes(event) {
    if (event.pointerType === "pen") this.hasPen = true;
    // A hand that rests beside a pen draws nothing.
    const isHand = (event.pointerType === "touch" && this.hasPen) || this.fingers.size > 0;
    return this.owner.tool !== "look" && !this.isMoving && !isHand && this.stage.info;
  }

  down(event) {
    if (this.held !== null && event.pointerType === "touch") this.giveTo(event);
    if (!this.takes(event) || event.button !== 0) return;
    event.stopPropagation();
    event.preventDefault();
    document.activeElement?.blur();
    if (this.held !== null) return;
    this.held = event.pointerId;
    this.began = event;
    this.stage.viewer.element.setPointerCapture(event.pointerId);
    this.place = this.at(event);
    this[this.owner.tool](this.place, event);
    this.owner.moved();
  }

  // A second finger has come: the two move the slide, and OpenSeadragon has to know the first.
  giveTo({ pointerId }) {
    const { began, corners, held, stage } = this;
    this.cancel(began);
    if (corners?.length > 1) this.corners = corners.slice(0, -1);
    this.fingers = new Set([held, pointerId]);
    stage.viewer.element.releasePointerCapture(held);
    began.target.dispatchEvent(new PointerEvent("pointerdown", began));
  }

  move(event) {
    if (!this.takes(event)) return;
    if (this.held !== null && event.pointerId !== this.held) return;
    this.place = this.at(event);
    if (this.held !== null) {
      for (const each of event.getCoalescedEvents?.() ?? []) this.drag(this.at(each));
      this.drag(this.place);
    }
    this.owner.moved();
  }

  up(event) {
    if (event.pointerId !== this.held) return;
    event.stopPropagation();
    this.held = null;
    if (this.stroke) this.finish();
    if (this.pressed) this.owner.drawn(this.pressed, this.within);
    if (this.frame) this.owner.framed(this.frame);
    this.pressed = this.frame = this.first = null;
    // A polygon that was drawn in one go is closed where the pointer is lifted.
    if (this.corners && this.dragged > NEAR / this.scale) this.close();
    this.owner.moved();
  }

  cancel(event) {
    if (event.pointerId !== this.held) return;
    this.held = null;
    this.forget();
    this.owner.moved();
  }

  get scale() {
    return this.stage.zoom();
  }

  isFar(place, [x, y], least) {
    return Math.hypot(place.x - x, place.y - y) >= least;
  }

  field(place) {
    this.first = place;
  }

  brush(place) {
    const field = this.owner.fieldAt(place);
    if (!field) return this.owner.outside();
    const { label, radius } = this.owner;
    this.stroke = { kind: "brush", label, radius, points: [[place.x, place.y]] };
    this.within = field;
  }

  eraser(place) {
    this.brush(place);
    if (this.stroke) this.stroke.label = 0;
  }

  object(place) {
    const field = this.owner.fieldAt(place);
    if (!field) return this.owner.outside();
    this.pressed = { kind: "object", label: this.owner.label, points: [[place.x, place.y]] };
    this.within = field;
  }

  polygon(place, event) {
    const { scale } = this;
    const isSecond = event.timeStamp - (this.last ?? -Infinity) < DOUBLE_MS;
    this.last = event.timeStamp;
    this.dragged = 0;
    if (!this.corners) {
      const field = this.owner.fieldAt(place);
      if (!field) return this.owner.outside();
      this.within = field;
      this.corners = [[place.x, place.y]];
      return;
    }
    const isFirst = !this.isFar(place, this.corners[0], NEAR / scale);
    const isSame = !this.isFar(place, this.corners.at(-1), NEAR / scale);
    if (this.corners.length > 2 && (isFirst || (isSecond && isSame))) this.close();
    else if (!isSame) this.corners.push([place.x, place.y]);
  }

  drag(place) {
    if (this.first) this.frame = this.frameTo(place);
    const points = this.stroke?.points ?? this.corners;
    if (!points) return;
    const step = STEP / this.scale;
    const least = this.stroke ? Math.max(step, this.stroke.radius / 8) : step;
    if (!this.isFar(place, points.at(-1), least)) return;
    const [x, y] = points.at(-1);
    this.dragged += Math.hypot(place.x - x, place.y - y);
    points.push([place.x, place.y]);
    if (this.stroke && points.length >= MOST_POINTS) {
      // Begins on what it has just drawn, and so goes on with the same object.
      const stroke = { ...this.stroke, points: [points.at(-1)] };
      this.finish();
      this.stroke = stroke;
    }
  }

  frameTo({ x, y }) {
    const { width, height } = this.stage.info;
    const within = (value, most) => Math.min(Math.max(value, 0), most);
    const left = within(Math.floor(Math.min(x, this.first.x)), width);
    const top = within(Math.floor(Math.min(y, this.first.y)), height);
    const right = within(Math.ceil(Math.max(x, this.first.x)), width);
    const bottom = within(Math.ceil(Math.max(y, this.first.y)), height);
    return { x: left, y: top, width: right - left, height: bottom - top };
  }

  finish() {
    const { stroke } = this;
    this.stroke = null;
    this.owner.drawn(stroke, this.within);
  }

  // Close the polygon that is drawn; false: there is none that can be.
  close() {
    const { corners } = this;
    if (!corners || corners.length < 3) return false;
    this.corners = null;
    this.owner.drawn({ kind: "polygon", label: this.owner.label, points: corners }, this.within);
    this.owner.moved();
    return true;
  }

  // Take back the last corner of the polygon; false: there is none.
  stepBack() {
    if (!this.corners) return false;
    this.corners.pop();
    if (!this.corners.length) this.corners = null;
    this.owner.moved();
    return true;
  }
}

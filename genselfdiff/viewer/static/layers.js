// The layers of a slide: what of them is shown, and the panel where that is chosen.

import { colourSquare, element } from "./dom.js";
import { ByteSource } from "./tile_sources.js";

// Little-endian, as everything that runs a browser today.
function rgba([red, green, blue], alpha) {
  return ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

export class Layer {
  constructor(index, info) {
    this.index = index;
    this.info = info;
    this.isMask = info.kind !== "probabilities";
    this.hasObjects = info.kind === "mask";
    this.visible = index === 0;
    this.opacity = this.isMask ? 0.5 : 0.7;
    // The first class is what no other is; it would cover the slide.
    this.hidden = new Set(this.isMask ? [0] : []);
    this.plane = this.isMask ? 0 : Math.min(1, info.classes.length - 1);
    this.colours = new Uint32Array(256);
    this.colour();
  }

  colour() {
    if (this.isMask) {
      this.colours.fill(0);
      this.info.classes.forEach(({ colour }, label) => {
        if (!this.hidden.has(label)) this.colours[label] = rgba(colour, 255);
      });
    } else {
      const { colour } = this.info.classes[this.plane];
      this.colours.forEach((_, value) => (this.colours[value] = rgba(colour, value)));
    }
  }

  // Its tiles, for one stage.
  source(number, info) {
    return new ByteSource(number, info, this);
  }

  lineColour(label) {
    const [red, green, blue] = this.info.classes[label]?.colour ?? [0, 0, 0];
    return `rgb(${red}, ${green}, ${blue})`;
  }

  // As a word of the page's address, and back: shown, percent of opacity, hidden classes or plane.
  get word() {
    const chosen = this.isMask ? [...this.hidden].sort((a, b) => a - b).join(".") : this.plane;
    return `${this.visible ? 1 : 0}-${Math.round(this.opacity * 100)}-${chosen}`;
  }

  set word(word) {
    const parts = /^([01])-(\d{1,3})-([\d.]*)$/.exec(word);
    if (parts === null) return;
    const count = this.info.classes.length;
    const chosen = parts[3].split(".").filter(Boolean).map(Number).filter((n) => n < count);
    this.visible = parts[1] === "1";
    this.opacity = Math.min(Number(parts[2]), 100) / 100;
    if (this.isMask) this.hidden = new Set(chosen);
    else this.plane = chosen[0] ?? this.plane;
    this.colour();
  }
}

// The panel's section of a layer; `changed` is called with what is to be done: "colours" or "layers".
export function layerSection(layer, changed) {
  const { info } = layer;
  const set = (name, value, what) => {
    layer[name] = value;
    layer.colour();
    changed(what);
  };
  const visible = element("input", { type: "checkbox", checked: layer.visible });
  visible.onchange = () => set("visible", visible.checked, "layers");
  const opacity = element("input", { type: "range", min: 0, max: 100, value: layer.opacity * 100 });
  opacity.setAttribute("aria-label", `Opacity of ${info.name}`);
  opacity.oninput = () => set("opacity", opacity.value / 100, "layers");
  const classes = element("ul");
  info.classes.forEach(({ name, colour }, label) => {
    const input = layer.isMask
      ? element("input", { type: "checkbox", checked: !layer.hidden.has(label) })
      : element("input", { type: "radio", name: `plane-${layer.index}`, checked: layer.plane === label });
    input.onchange = () => {
      if (!layer.isMask) return set("plane", label, "layers");
      if (input.checked) layer.hidden.delete(label);
      else layer.hidden.add(label);
      layer.colour();
      changed("colours");
    };
    classes.append(element("li", {}, element("label", {}, input, colourSquare(colour), name)));
  });
  return element(
    "fieldset",
    {},
    element("legend", {}, element("label", {}, visible, info.name)),
    element("label", { className: "opacity" }, "Opacity", opacity),
    classes,
  );
}

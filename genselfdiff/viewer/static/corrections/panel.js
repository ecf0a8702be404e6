// The panel in which people choose what they draw with, and what becomes of it.

import { colourSquare, element } from "../dom.js";
import { number } from "../scale.js";
import { IGNORED } from "./field_picture.js";

export const TOOLS = [
  ["look", "Look", "v", "move the slide, click objects"],
  ["field", "Field", "f", "frame a field to be corrected"],
  ["brush", "Brush", "b", "draw with a brush"],
  ["eraser", "Eraser", "e", "erase"],
  ["polygon", "Polygon", "g", "draw a polygon, corner by corner or in one go"],
  ["object", "Object", "k", "give a whole object another class, or none"],
];

function button(text, act, more = {}) {
  const made = element("button", more, text);
  made.onclick = act;
  return made;
}

// The parts of the panel for `owner`, see part.js.
export function sections(owner) {
  const { record } = owner;
  const tools = element("div", { className: "tools", role: "group", "aria-label": "Tools" });
  tools.append(...TOOLS.map(([tool, name, key]) => button(name, () => owner.choose({ tool }), {
    title: `${name} (${key})`,
    "aria-pressed": String(owner.tool === tool),
  })));
  const canUndo = record.state.undo || record.heldHere.length > 0;
  const again = element(
    "div",
    { className: "tools" },
    button("Undo", () => owner.step("undo"), { disabled: !canUndo, title: "Ctrl+Z" }),
    button("Redo", () => owner.step("redo"), { disabled: !record.state.redo, title: "Ctrl+Y" }),
  );
  const shown = element("input", { type: "checkbox", checked: owner.isShown });
  shown.onchange = () => owner.choose({ isShown: shown.checked });
  return element(
    "fieldset",
    { className: "correct" },
    element("legend", {}, "Correct"),
    tools,
    ...(owner.tool === "field" ? [beginning(owner)] : []),
    ...(["brush", "eraser"].includes(owner.tool) ? [size(owner)] : []),
    ...(["brush", "polygon", "object"].includes(owner.tool) ? [classes(owner)] : []),
    again,
    element("label", {}, shown, "Show what is drawn"),
    fields(owner),
    results(owner),
    told(owner),
  );
}

// Always the same element, for those who hear what it says.
function told(owner) {
  owner.line ??= element("small", { role: "status" });
  if (owner.line.textContent !== owner.told) owner.line.textContent = owner.told;
  return owner.line;
}

function beginning(owner) {
  const [chosen] = owner.begins;
  const select = element("select", {}, ...owner.beginnings.map(([value, text]) => (
    element("option", { value, selected: value === chosen }, text)
  )));
  select.onchange = () => owner.choose({ beginning: select.value });
  return element("label", {}, "A field begins", select);
}

function size(owner) {
  const { mpp } = owner.info;
  const input = element("input", { type: "range", min: 0, max: 100, value: owner.sizeAt });
  const told = element("small");
  const tell = () => {
    told.textContent = mpp === null
      ? `${number(2 * owner.radius)} px wide`
      : `${number(2 * owner.radius * mpp)} \u00b5m wide`;
  };
  input.oninput = () => {
    owner.sizeAt = Number(input.value);
    tell();
    owner.moved();
  };
  tell();
  return element("div", {}, element("label", {}, "Size", input), told);
}

function classes(owner) {
  const list = element("ul");
  const known = owner.record.state.classes.map(({ name, colour }, label) => [label, name, colour]);
  for (const [label, name, colour] of [...known, [IGNORED, "not labelled", [120, 120, 120]]]) {
    const input = element("input", { type: "radio", name: "drawn", checked: owner.label === label });
    input.onchange = () => owner.choose({ label });
    const square = label === 0 ? [] : [colourSquare(colour)];
    list.append(element("li", {}, element("label", {}, input, ...square, name)));
  }
  // Always the same one: what is typed stays when the panel is filled anew.
  owner.form ??= anotherClass(owner);
  return element("div", {}, list, owner.form);
}

function anotherClass(owner) {
  const name = element("input", { type: "text", maxLength: 100, placeholder: "another class" });
  name.setAttribute("aria-label", "Name of another class");
  const form = element("form", { className: "add" }, name, element("button", {}, "Add"));
  form.onsubmit = (event) => {
    event.preventDefault();
    owner.addClass(name.value);
    form.reset();
  };
  return form;
}

function fields(owner) {
  const { mpp } = owner.info;
  const list = element("ul", { className: "fields" });
  owner.record.fields.forEach((field, place) => {
    const [width, height] = [field.width, field.height].map((n) => number(n * (mpp ?? 1)));
    const text = `${place + 1}: ${width} \u00d7 ${height} ${mpp === null ? "px" : "\u00b5m"}`;
    const remove = () => owner.record.do({ kind: "remove", field: field.id });
    list.append(element(
      "li",
      {},
      button(text, () => owner.goTo(field)),
      button("Remove", remove, { "aria-label": `Remove field ${place + 1}` }),
    ));
  });
  const hint = element("small", {}, "No field yet: choose Field, and frame one on the slide.");
  return owner.record.fields.length ? list : hint;
}

function results(owner) {
  const input = element("input", { type: "file", accept: ".geojson,.json", hidden: true });
  input.onchange = () => input.files.length && owner.readGeojson(input.files[0]);
  return element(
    "div",
    { className: "tools" },
    button("Write images and masks", () => owner.writeResults(), { title: "w" }),
    button("Read GeoJSON", () => input.click()),
    input,
  );
}

// Keys of the page, and the list of them.

import { byId, element } from "./dom.js";

const STEP = 120;

const MOVES = {
  ArrowLeft: [-STEP, 0],
  ArrowRight: [STEP, 0],
  ArrowUp: [0, -STEP],
  ArrowDown: [0, STEP],
};

// A key, what it is for, and what it does; those of the parts that are plugged in come first.
function actions(page) {
  const press = (id) => () => byId(id).click();
  return [
    ...page.parts.flatMap((part) => part.keys ?? []),
    ["+", "zoom in", press("zoom-in")],
    ["-", "zoom out", press("zoom-out")],
    ["0", "show the whole slide", press("zoom-home")],
    ["1", "one pixel of the slide on one of the screen", press("zoom-native")],
    ["m", "hide the layers, show them again", () => page.toggleLayers()],
    ["[", "layers fainter", () => page.fade(-0.1)],
    ["]", "layers stronger", () => page.fade(0.1)],
    ["o", "outlines of objects on or off", () => page.toggleOutlines()],
    ["c", "compare: overlaid, divided, side by side", () => page.compare.next()],
    ["Escape", "forget the object that was clicked", () => page.choose(null)],
    ["n", "next slide", () => page.step(1)],
    ["p", "previous slide", () => page.step(-1)],
    ["l", "panel of layers", press("panel-button")],
    ["s", "list of slides", press("list-button")],
    ["?", "this list", press("help-button")],
  ];
}

function nameOf({ key, ctrlKey, metaKey, shiftKey }) {
  if (ctrlKey || metaKey) return `Ctrl+${shiftKey ? "Shift+" : ""}${key.toLowerCase()}`;
  return key === "=" ? "+" : key;
}

export function answerKeys(page) {
  const list = actions(page);
  const act = (key) => list.some(([name, , action]) => name === key && action() !== false);
  byId("keys").replaceChildren(
    element("dt", {}, "arrows"),
    element("dd", {}, "move the slide"),
    ...list.flatMap(([key, purpose]) => [element("dt", {}, key), element("dd", {}, purpose)]),
  );
  document.addEventListener("keydown", (event) => {
    const { target } = event;
    if (event.altKey || byId("help").open) return;
    const key = nameOf(event);
    // Sliders and lists have uses of their own for arrows.
    const move = MOVES[key];
    if (move && !target.closest("input, select, nav, [role=slider]")) page.led.panBy(...move);
    else if (target.closest("select, input:not([type=checkbox], [type=radio], [type=range])")) return;
    else if (!act(key)) return;
    event.preventDefault();
  });
}

// Curves of a run as pictures of lines.

import { element } from "../dom.js";
import { number } from "../scale.js";

const SVG = "http://www.w3.org/2000/svg";

const WIDTH = 220;

const HEIGHT = 70;

function drawn(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// A curve of [step, value], with its name and its last value; null where there is none yet.
export function curve(name, points) {
  if (!points.length) return null;
  const [steps, values] = [0, 1].map((axis) => points.map((point) => point[axis]));
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const last = steps.at(-1);
  const place = ([step, value]) => [
    (step / Math.max(last, 1)) * WIDTH,
    HEIGHT - (high > low ? (value - low) / (high - low) : 0.5) * HEIGHT,
  ];
  const picture = drawn("svg", {
    viewBox: `-3 -3 ${WIDTH + 6} ${HEIGHT + 6}`,
    role: "img",
    "aria-label": `${name} from ${number(values[0])} to ${number(values.at(-1))} at step ${last}`,
  });
  picture.append(drawn("polyline", { points: points.map((point) => place(point).join()).join(" ") }));
  const [x, y] = place(points.at(-1));
  picture.append(drawn("circle", { cx: x, cy: y, r: 3 }));
  const range = `${number(low)} to ${number(high)}`;
  const told = `${name} ${number(values.at(-1))} at step ${last} (${range})`;
  return element("figure", {}, picture, element("figcaption", {}, told));
}

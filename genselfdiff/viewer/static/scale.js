// How large things on the screen are.

import { byId } from "./dom.js";

const LONGEST_BAR = 160;

// Magnification as of a microscope: 40x at a quarter of a micrometre a pixel.
const MPP_AT_1X = 10;

export function showScale(zoom, mpp) {
  const bar = byId("bar");
  if (mpp === null) {
    byId("scale").textContent = `${number(zoom)} screen px per pixel`;
    bar.hidden = true;
    return;
  }
  const seen = mpp / zoom;
  byId("scale").textContent = `${number(MPP_AT_1X / seen)}x \u00b7 ${number(seen)} \u00b5m/px`;
  const longest = LONGEST_BAR * seen;
  const power = 10 ** Math.floor(Math.log10(longest));
  const length = [5, 2, 1].map((n) => n * power).find((n) => n <= longest * (1 + 1e-9));
  bar.hidden = false;
  bar.querySelector("i").style.width = `${length / seen}px`;
  bar.querySelector("span").textContent =
    length >= 1000 ? `${number(length / 1000)} mm` : `${number(length)} \u00b5m`;
}

// "1 stroke", "2 strokes".
export function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

export function number(value) {
  return String(Number(value.toPrecision(3)));
}

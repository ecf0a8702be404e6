// The slides, with thumbnails, areas and what has become of each.

import { byId, element } from "./dom.js";
import { number } from "./scale.js";

export function fillList(slides, open) {
  byId("list").replaceChildren(...slides.map((slide, index) => {
    const areas = Object.entries(slide.areas).map(
      ([name, area]) => `${name}: ${slide.unit === "px" ? area : number(area)} ${slide.unit}`,
    );
    const picture = element("img", {
      src: `slides/${index}/thumbnail`,
      alt: "",
      loading: "lazy",
      decoding: "async",
    });
    picture.onerror = () => picture.remove();
    const text = element(
      "span",
      {},
      element("strong", {}, slide.name),
      element("em", { className: slide.state.replace(" ", "-") }, slide.state),
      ...[slide.error, ...areas].filter(Boolean).map((line) => element("small", {}, line)),
    );
    const button = element("button", { title: `${slide.folder}/${slide.name}` }, picture, text);
    button.onclick = () => open(index);
    return button;
  }));
}

export function markCurrent(slide) {
  [...byId("list").children].forEach((button, index) => {
    if (index === slide) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  });
}

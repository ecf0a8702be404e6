// What is seen, in the part of the page's address behind '#': it leads there again.

export function readAddress() {
  const told = new URLSearchParams(location.hash.slice(1));
  const place = ["x", "y", "zoom"].map((name) => Number.parseFloat(told.get(name)));
  return {
    slide: Number.parseInt(told.get("slide"), 10) || 0,
    view: place.every(Number.isFinite) && place[2] > 0
      ? { x: place[0], y: place[1], zoom: place[2] }
      : null,
    layers: (told.get("layers") ?? "").split("_"),
    outlines: told.get("outlines") !== "0",
    compare: told.get("compare") ?? "",
  };
}

export function writeAddress({ slide, view, layers, outlines, compare }) {
  const told = new URLSearchParams({
    slide,
    x: Math.round(view.x),
    y: Math.round(view.y),
    zoom: Number(view.zoom.toPrecision(4)),
  });
  if (layers.length) told.set("layers", layers.map((layer) => layer.word).join("_"));
  if (!outlines) told.set("outlines", "0");
  if (compare) told.set("compare", compare);
  history.replaceState(null, "", `#${told}`);
}

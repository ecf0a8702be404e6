"""From the shipped model to one that knows a slide, with gsd's own commands and a page's requests.

    python benchmarks/suggest/loop.py IMAGES TRUTH OUT [--by model] [-n 5] [--steps 300] [--seed 0]
        [--picture FILE]

IMAGES are fields of nuclei at 0.25 um/px that `nuclei` has not seen, TRUTH the numbers of their
nuclei under the same names, such as MoNuSeg's. They are laid side by side into one slide in OUT.
`gsd suggest` chooses fields of it. What a person would draw there is taken from the truth: it goes
as GeoJSON to the server of `gsd view`, which is then killed as a machine that fails would.
`gsd data corrections` makes images and masks of what the server has kept, `gsd train finetune` a
model of them, and `gsd evaluate` compares it with `nuclei` on the images in which no field lies.
--picture shows of the one whose PQ has changed by the median: the truth, and what both models find.
"""

import argparse
import json
import math
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from genselfdiff.data.labelled.masks import read_mask
from genselfdiff.data.labelled.pairs import Pair, find_pairs
from genselfdiff.evaluation.bootstrap import mean_interval
from genselfdiff.evaluation.evaluation_file import read_evaluation
from genselfdiff.masks.overlay import mark_edges
from genselfdiff.objects.outlines import OutlineTracer
from genselfdiff.slides import read_image

GSD = [sys.executable, "-m", "gsd"]
MPP = 0.25
METRICS = ("dice", "aji", "pq")
OUTLINE = (255, 230, 0)


def main() -> None:
    """Go through the loop once, and print both models' scores."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("out", type=Path, help="folder that is not there yet")
    parser.add_argument("--by", choices=("model", "variety", "random"), default="model")
    parser.add_argument("-n", "--count", type=int, default=5, help="fields")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, help="JPEG or PNG")
    options = parser.parse_args()
    out = options.out
    out.mkdir(parents=True)
    pairs = find_pairs(options.images, options.truth)
    across = math.isqrt(len(pairs))
    pairs = pairs[: len(pairs) // across * across]
    side = min(min(read_image(pair.image).shape[:2]) for pair in pairs)
    slide, fields = out / "slide.tif", out / "fields.geojson"
    write_slide(slide, laid([read_image(pair.image)[:side, :side] for pair in pairs], across))
    chosen = ["-n", str(options.count), "--by", options.by, "--seed", str(options.seed)]
    gsd("suggest", slide, *chosen, "-o", fields)
    frames = json.loads(fields.read_text())["features"]
    truth = laid([read_mask(pair.mask)[:side, :side].astype(np.int64) for pair in pairs], across)
    drawn = [feature for frame in frames for feature in nuclei_in(box_of(frame), truth)]
    send(slide, out / "corrections", {"type": "FeatureCollection", "features": frames + drawn})
    gsd("data", "corrections", out / "corrections")
    how = ["--init", "nuclei", "--instances", "--steps", str(options.steps)]
    seeded = ["--seed", str(options.seed)]
    gsd("train", "finetune", out / "corrections", *how, *seeded, "--out", out / "run")
    gsd("export", out / "run", "-o", out / "model.ts")
    others = [
        pair
        for number, pair in enumerate(pairs)
        if not any(meets(box_of(frame), number, across, side) for frame in frames)
    ]
    models = ("nuclei", str(out / "model.ts"))
    before, after = (scores(model, others, out) for model in models)
    report(before, after)
    if options.picture:
        gains = {name: after["pq"][name] - before["pq"][name] for name in before["pq"]}
        middle = sorted(gains, key=gains.__getitem__)[len(gains) // 2]
        shown = next(pair for pair in others if pair.image.stem == middle)
        draw(options.picture, shown, models, out)


def laid(pictures: list[NDArray[Any]], across: int) -> NDArray[Any]:
    """Pictures of one size side by side, row by row; numbers of objects stay apart."""
    if pictures[0].dtype == np.int64:
        most = 1 + max(int(picture.max()) for picture in pictures)
        pictures = [np.where(p, p + most * number, 0) for number, p in enumerate(pictures)]
    rows = [
        np.concatenate(pictures[start : start + across], axis=1)
        for start in range(0, len(pictures), across)
    ]
    return np.concatenate(rows)


def write_slide(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write a tiled TIFF without loss, with its resolution."""
    tifffile.imwrite(
        path,
        pixels,
        photometric="rgb",
        tile=(256, 256),
        compression="zlib",
        resolution=(1e4 / MPP, 1e4 / MPP),
        resolutionunit="CENTIMETER",
    )


def box_of(frame: dict[str, Any]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a field."""
    corners = np.array(frame["geometry"]["coordinates"][0])
    left, top, right, bottom = (*corners.min(0).tolist(), *corners.max(0).tolist())
    return left, top, right, bottom


def meets(box: tuple[int, int, int, int], number: int, across: int, side: int) -> bool:
    """Whether a field has pixels of an image in it."""
    left, top = number % across * side, number // across * side
    is_across = box[0] < left + side and left < box[2]
    return is_across and box[1] < top + side and top < box[3]


def nuclei_in(box: tuple[int, int, int, int], truth: NDArray[np.int64]) -> list[dict[str, Any]]:
    """The nuclei of a field as annotations of QuPath."""
    left, top, right, bottom = box
    tracer = OutlineTracer(right - left)
    outlines = [*tracer.push(truth[top:bottom, left:right]), *tracer.finish()]
    return [
        {
            "type": "Feature",
            "geometry": {
                "type": "Polygon",
                "coordinates": [
                    np.add(np.concatenate((ring, ring[:1])), (left, top)).tolist()
                    for ring in outline.rings
                ],
            },
            "properties": {"objectType": "annotation", "classification": {"name": "Nucleus"}},
        }
        for outline in outlines
    ]


def send(slide: Path, folder: Path, annotations: dict[str, Any]) -> None:
    """Give annotations to the page's server, and kill it when it has answered."""
    command = [*GSD, "view", str(slide), "--corrections", str(folder), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = next(word for line in server.stdout for word in line.split() if "://" in word)
        asked = urllib.request.Request(
            f"{address}corrections/0/geojson",
            json.dumps(annotations).encode(),
            {"Content-Type": "application/geo+json"},
        )
        with urllib.request.urlopen(asked) as answer:
            print(json.load(answer)["told"], flush=True)
        server.kill()


def scores(model: str, pairs: list[Pair], out: Path) -> dict[str, dict[str, float]]:
    """Scores of a model by metric and image."""
    folder = out / "others"
    for pair in pairs:
        for part, path in (("images", pair.image), ("masks", pair.mask)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            link = folder / part / path.name
            if not link.is_symlink():
                link.symlink_to(path.resolve())
    told = out / f"{Path(model).stem}.json"
    of = ["--images", folder / "images", "--masks", folder / "masks", "--mpp", MPP]
    gsd("evaluate", model, *of, "--foreground", "--json", told)
    images = read_evaluation(told).images
    return {key: {i.name: float(i.by_class[key][1]) for i in images} for key in METRICS}


def report(before: dict[str, dict[str, float]], after: dict[str, dict[str, float]]) -> None:
    """Print means, and the mean difference of the same images with its 95 % interval."""
    for key in METRICS:
        apart = np.array([after[key][name] - before[key][name] for name in before[key]])
        low, high = mean_interval(apart) or (math.nan, math.nan)
        means = [float(np.mean(list(model[key].values()))) for model in (before, after)]
        change = f"{apart.mean():+.3f} ({low:+.3f} {high:+.3f})"
        print(f"{key:5} {means[0]:.3f} -> {means[1]:.3f}  {change}  {len(apart)} images")


def draw(path: Path, pair: Pair, models: tuple[str, ...], out: Path) -> None:
    """Save an image's truth beside what each model finds in it, as outlines."""
    found = [read_mask(pair.mask)]
    for number, model in enumerate(models):
        mask = out / f"shown{number}.tif"
        gsd("segment", pair.image, "-o", mask, "--model", model, "--mpp", MPP, "--labels")
        found.append(tifffile.imread(mask.with_name(f"{mask.stem}_instances.tif")))
    image = read_image(pair.image)
    panels = [np.where(mark_edges(ids)[..., None], OUTLINE, image) for ids in found]
    gap = np.full((len(image), 8, 3), 255)
    row = np.concatenate([panels[0], *(part for p in panels[1:] for part in (gap, p))], axis=1)
    Image.fromarray(row.astype(np.uint8)).save(path, quality=85)
    print(f"{path}: {pair.image.name}", flush=True)


def gsd(*words: object) -> None:
    """Run a command of gsd; its lines are shown."""
    print("gsd", *words, flush=True)
    subprocess.run([*GSD, *map(str, words), "-q"], check=True)


if __name__ == "__main__":
    main()

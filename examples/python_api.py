"""The package from Python, cell by cell, on the sample slide: seconds on a laptop.

    python examples/python_api.py [FOLDER]

Editors that know ``# %%`` run it like a notebook. Results go to FOLDER, else to demo/python_api.
"""

# %% A slide is opened by its path; pixels are read where and at the resolution that is asked for.
import csv
import sys
from pathlib import Path

import torch

import genselfdiff

SLIDE = Path(__file__).with_name("CMU-1-Small-Region.svs")
OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "demo/python_api")
OUT.mkdir(parents=True, exist_ok=True)
AT, SIDE = (1136, 888), 144

with genselfdiff.open_slide(SLIDE) as slide:
    print(f"{slide.width} x {slide.height} pixels of {slide.mpp} um")
    field = slide.read_level(*AT, SIDE, SIDE)  # (144, 144, 3) uint8

# %% A model says what it is, and takes batches of images. It computes at its own resolution.
model = genselfdiff.load_model("nuclei", "cpu")
print(f"{model.info.classes} at {model.info.mpp} um per pixel; {model.info.licence}")
images = torch.from_numpy(field).permute(2, 0, 1)[None]  # (1, 3, 144, 144)
probabilities = model(torch.nn.functional.interpolate(images, scale_factor=2))
print(f"{tuple(probabilities.shape)}: {probabilities[0, 1].mean():.2f} of it nucleus")

# %% The nuclei of a part: the mask has the slide's size, and lies right over it in QuPath.
result = genselfdiff.segment(
    SLIDE,
    OUT / "mask.tif",
    model,
    region=(*AT, SIDE, SIDE),
    precision="float32",
    geojson=True,
    table=True,
    overwrite=True,
)
print(result.summary())

# %% What lies beside the mask can be computed with.
assert result.files.table is not None
with result.files.table.open(newline="") as file:
    areas = [float(row["area_um2"]) for row in csv.DictReader(file)]
print(f"{len(areas)} nuclei, the median of {sorted(areas)[len(areas) // 2]:.0f} um2")

# %% A network, the loss of stage 2 and one step of a loop of one's own.
network = genselfdiff.create_model("tiny", out_channels=2)
optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
labels = probabilities[:, :2, ::2, ::2].argmax(1)
logits = network(images / 127.5 - 1, torch.zeros(1, dtype=torch.int64))
loss = genselfdiff.MultiLoss()(logits, labels)
loss.backward()
optimiser.step()
print(f"loss {loss.item():.3f}")

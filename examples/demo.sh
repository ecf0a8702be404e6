#!/usr/bin/env bash
# The sample slide with the model that comes along, then the whole journey to a model of one's own:
# pretrain, fine-tune, export, segment. Results in demo/.
set -euo pipefail
cd "$(dirname "$0")/.."
slide=examples/CMU-1-Small-Region.svs
rm -rf demo
mkdir demo

say() { printf '\n== %s\n' "$*"; }

say "1/7 nuclei, with the model that comes with gsd: mask, polygons for QuPath, table, picture"
gsd segment "$slide" -o demo/nuclei.tif --geojson --table --overlay --outline

say "2/7 stage 1: a small network learns from unlabelled tiles of the slide"
gsd train pretrain "$slide" --mpp 0.5 --out demo/pretrain \
    --architecture tiny --tile-size 128 --steps 400 --validate-every 100 --sample-every 200 --learning-rate 2e-3

say "3/7 labels: nuclei by a classical rule, standing in for a pathologist"
python examples/stand_in_fields.py "$slide" demo/fields

say "4/7 stage 2: the network learns the labels of a few fields"
gsd train finetune --images demo/fields/images --masks demo/fields/masks --classes background,nucleus \
    --mpp 0.5 --val field-1,field-5 --init demo/pretrain --out demo/finetune \
    --tile-size 128 --steps 160 --validate-every 40 --learning-rate 1e-3

say "5/7 export to one TorchScript file"
gsd export demo/finetune -o demo/model.ts --licence "CC0-1.0 (trained on the sample slide alone)"

say "6/7 segment the whole slide with it"
gsd segment "$slide" -o demo/mask.tif --model demo/model.ts --overlay-to demo/overlay.png

say "7/7 what stage 1 has learnt: images drawn from noise"
gsd sample demo/pretrain -o demo/samples.png --count 4 --steps 25
cp demo/pretrain/curves.png demo/curves_pretrain.png
cp demo/finetune/curves.png demo/curves_finetune.png

say "done: look at demo/nuclei_overlay.png, and at demo/overlay.png of the model just trained; the masks open in QuPath"

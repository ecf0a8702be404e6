#!/usr/bin/env bash
# The whole journey on the sample slide: pretrain, fine-tune, export, segment. Results in demo/.
set -euo pipefail
cd "$(dirname "$0")/.."
slide=examples/CMU-1-Small-Region.svs
rm -rf demo
mkdir demo

say() { printf '\n== %s\n' "$*"; }

say "1/6 stage 1: a small network learns from unlabelled tiles of the slide"
gsd train pretrain "$slide" --mpp 0.5 --out demo/pretrain \
    --architecture tiny --tile-size 128 --steps 400 --validate-every 100 --sample-every 200 --learning-rate 2e-3

say "2/6 labels: nuclei by a classical rule, standing in for a pathologist"
python examples/stand_in_fields.py "$slide" demo/fields

say "3/6 stage 2: the network learns the labels of a few fields"
gsd train finetune --images demo/fields/images --masks demo/fields/masks --classes background,nucleus \
    --mpp 0.5 --val field-1,field-5 --init demo/pretrain --out demo/finetune \
    --tile-size 128 --steps 160 --validate-every 40 --learning-rate 1e-3

say "4/6 export to one TorchScript file"
gsd export demo/finetune -o demo/model.ts --licence "CC0-1.0 (trained on the sample slide alone)"

say "5/6 segment the whole slide"
gsd segment "$slide" -o demo/mask.tif --model demo/model.ts --overlay-to demo/overlay.png

say "6/6 what stage 1 has learnt: images drawn from noise"
gsd sample demo/pretrain -o demo/samples.png --count 4 --steps 25
cp demo/pretrain/curves.png demo/curves_pretrain.png
cp demo/finetune/curves.png demo/curves_finetune.png

say "done: look at demo/overlay.png; demo/mask.tif opens in QuPath"

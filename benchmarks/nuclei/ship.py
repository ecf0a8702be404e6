"""Make the weights of a run those that gsd is shipped with.

    python benchmarks/nuclei/ship.py RUN -o genselfdiff/shipped/nuclei.safetensors \
        --licence CC-BY-4.0 --attributions benchmarks/nuclei/attributions.txt \
        --tile-size 512 --overlap 0.125

The attributions are a file with one a line, with licence and source; they stay in the weights, in
what is exported of them, and in what is trained further from them.
"""

import argparse
from pathlib import Path

from genselfdiff.training.export import ship_run


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--licence", required=True)
    parser.add_argument("--attributions", type=Path, required=True)
    parser.add_argument("--tile-size", type=int, help="of segmenting")
    parser.add_argument("--overlap", type=float, help="of segmenting")
    options = parser.parse_args()
    lines = options.attributions.read_text(encoding="utf-8").splitlines()
    attributions = [line.strip() for line in lines if line.strip()]
    if not attributions:
        parser.error(f"{options.attributions}: no attributions in it")
    info = ship_run(
        options.run,
        options.output,
        licence=options.licence,
        attributions=attributions,
        tile_size=options.tile_size,
        overlap=options.overlap,
    )
    size = options.output.stat().st_size
    print(f"{options.output}: {size:,} bytes, {', '.join(info.classes)} at {info.mpp:g} um/px")


if __name__ == "__main__":
    main()

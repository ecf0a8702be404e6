"""Find how the Triton kernels are launched best on this GPU, and write kernels/tiles.json of it.

    python benchmarks/autotune.py [--minutes 8] [--out FILE]

Of each entry of the table that this GPU uses, what differs from it in a parameter or two is tried:
compiled and checked against plain torch in float64, in several processes, and then timed. What is
fastest is written at once, so that the file is good whenever the time is over. Candidates that do
not compile, or give wrong numbers, are told and left.

--rehearse does the same on the CPU in Triton's interpreter, on small images, with few candidates:
to see that the script works. It writes nothing unless --out says where to.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

if "--rehearse" in sys.argv:
    os.environ["TRITON_INTERPRET"] = "1"  # before there is a kernel

import torch
from forms import error, is_right
from timing import Timer

from genselfdiff.kernels import tiles
from genselfdiff.kernels.group_norm_silu import reference as plain_norm
from genselfdiff.kernels.group_norm_silu import triton as norm
from genselfdiff.kernels.linear_attention import reference as plain_attention
from genselfdiff.kernels.linear_attention import triton as attention
from genselfdiff.kernels.multi_loss import reference as plain_loss
from genselfdiff.kernels.multi_loss import triton as loss

TABLE = Path(__file__).parents[1] / "genselfdiff" / "kernels" / "tiles.json"
HEADS, HIDDEN, GROUPS = 4, 128, 8
CLASSES = {"narrow": 16, "wide": 4}
"""Of the multi-loss, whose channels they are."""
EPSILON = 1e-5
SHAPES = ("bfloat16 narrow", "bfloat16 wide", "float32 narrow", "float32 wide")
TIMED = {"narrow": (8, 64, 256, 256), "wide": (8, 128, 128, 128)}
CHECKED = {"narrow": (2, 64, 51, 47), "wide": (2, 128, 51, 47)}
REHEARSED = {"narrow": (1, 32, 9, 8), "wide": (1, 80, 9, 8)}
LATE = "took too long"
GAIN = 0.98
"""What a candidate has to take of the entry's time to replace it."""

Candidate = tuple[str, tiles.Tiles]
_OPTIONS: dict[str, tuple[Any, ...]] = {"num_warps": (4, 8), "num_stages": (1, 2, 3)}
_UNHELD = {"block_t": (32, 64, 128), "block_c": (32, 64), **_OPTIONS}
_BLOCKS = {**_UNHELD, "held": (False, True)}
_GROUPS = {"block_t": (32, 64, 128), "group": (1, 2, 4), **_OPTIONS, "held": (False, True)}
_FLAT = {"block_t": (16, 32, 64, 128), "block_c": (32, 64, 128), "num_warps": (2, 4, 8)}
FORWARD, BACKWARD = "linear_attention forward", "linear_attention backward"
SPACE: dict[str, tuple[str, dict[str, tuple[Any, ...]]]] = {
    # By entry: the operation that it is timed in, and what is tried. The most promising first.
    "linear_attention.weight_gradient": (BACKWARD, _BLOCKS | {"run": (1024, 2048, 4096)}),
    "linear_attention.output_sums": (BACKWARD, _BLOCKS | {"run": (1024, 2048, 4096)}),
    "linear_attention.query_gradient": (BACKWARD, _UNHELD | {"run": (128, 256, 512)}),
    "linear_attention.key_value_gradient": (BACKWARD, _GROUPS | {"run": (128, 256, 512)}),
    "linear_attention.output": (FORWARD, _BLOCKS | {"run": (128, 256, 512)}),
    "linear_attention.context": (FORWARD, _GROUPS | {"run": (256, 512, 1024)}),
    "group_norm_silu.apply": ("group_norm_silu", _FLAT),
    "group_norm_silu.sums": ("group_norm_silu", _FLAT | {"run": (128, 256, 512)}),
    "linear_attention.input_gradient": (BACKWARD, _FLAT),
    "multi_loss.pixels": ("multi_loss", {"run": (512, 1024, 2048), "num_warps": (4, 8)}),
}
PAIRS = ((32, 4), (64, 4), (64, 8), (128, 4), (128, 8))
"""Tokens and warps that are tried together."""


def is_valid(kernel: str, shape: str, tile: tiles.Tiles) -> bool:
    """Whether a kernel can be launched so."""
    if tile.run % tile.block_t:
        return False
    narrow = shape.endswith("narrow")
    if kernel == "linear_attention.weight_gradient":  # of the block's channels alone
        return True
    whole = tile.block_c >= tiles.NARROW or kernel == "linear_attention.output_sums"
    return not tile.held or (narrow and whole)


def candidates(kernel: str, shape: str, now: tiles.Tiles) -> Iterator[tiles.Tiles]:
    """What differs from an entry in one parameter, or in tokens and warps."""
    space = SPACE[kernel][1]
    changed: list[dict[str, Any]] = [
        {"block_t": t, "num_warps": w}
        for t, w in PAIRS
        if t in space.get("block_t", ()) and w in space["num_warps"]
    ]
    changed += [{name: value} for name, values in space.items() for value in values]
    seen = {now}
    for change in changed:
        tile = replace(now, **change)
        if tile not in seen and is_valid(kernel, shape, tile):
            seen.add(tile)
            yield tile


def use(kernel: str, shape: str, tile: tiles.Tiles, capability: int) -> None:
    """Put an entry into the table of this process."""
    written = {
        name: value
        for name, value in asdict(tile).items()
        if name in ("block_t", "block_c") or value != getattr(tiles.Tiles(0, 0), name)
    }
    tiles.table()[str(capability)][kernel][shape] = written
    tiles.looked_up.cache_clear()


def entry(kernel: str, shape: str, capability: int) -> tiles.Tiles:
    """One of the table of this process."""
    return tiles.entry(kernel, capability, *shape.split())


def text(table: dict[str, Any]) -> str:
    """The file, an entry a line."""

    def braced(items: dict[str, str], indent: str) -> str:
        lines = ",\n".join(f'{indent} "{name}": {value}' for name, value in items.items())
        return f"{{\n{lines}\n{indent}}}"

    return (
        braced(
            {
                capability: braced(
                    {
                        kernel: braced(
                            {shape: json.dumps(one) for shape, one in entries.items()}, "  "
                        )
                        for kernel, entries in kernels.items()
                    },
                    " ",
                )
                for capability, kernels in table.items()
            },
            "",
        )
        + "\n"
    )


Call = Callable[[], tuple[torch.Tensor, ...]]


@lru_cache(maxsize=2)
def calls(operation: str, shape: str, size: tuple[int, ...], device: str) -> tuple[Call, Call]:
    """An operation's Triton kernels on random numbers, and plain torch on the same in float64."""
    dtype = getattr(torch, shape.split()[0])
    generator = torch.Generator().manual_seed(0)
    channels = size[1]

    def normal(*of: int, scale: float = 1.0) -> torch.Tensor:
        drawn = (scale * torch.randn(of, generator=generator)).to(dtype).to(device)
        return drawn.contiguous(memory_format=torch.channels_last) if drawn.dim() == 4 else drawn

    def double(given: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(
            one.double() if isinstance(one, torch.Tensor) and one.is_floating_point() else one
            for one in given
        )

    if operation == "multi_loss":
        classes = CLASSES[shape.split()[1]]
        shaped = (size[0], classes, *size[2:])
        labels = torch.randint(classes, (size[0], *size[2:]), generator=generator).to(device)
        given: tuple[Any, ...] = (normal(*shaped), labels, None, False, 2.0, None)
        return (lambda: loss.multi_loss(*given)), lambda: plain_loss.multi_loss(*double(given))
    x, grad_y = normal(*size), normal(*size)
    if operation == "group_norm_silu":
        gain, bias = normal(channels), normal(channels)
        given = (x, gain, bias, GROUPS, normal(size[0], channels), normal(*size), EPSILON)

        def both(
            module: Any, given: tuple[Any, ...], grad_y: torch.Tensor
        ) -> tuple[torch.Tensor, ...]:
            y, mean, rstd = module.forward(*given)
            return y, *module.backward(grad_y, *given[:3], mean, rstd)

        return (lambda: both(norm, given, grad_y)), lambda: both(
            plain_norm, double(given), grad_y.double()
        )
    norms = [normal(channels) for _ in range(5)]
    qkv = normal(3 * HIDDEN, channels, 1, 1, scale=channels**-0.5)
    out = normal(channels, HIDDEN, 1, 1, scale=HIDDEN**-0.5)
    parameters = (*norms[:2], qkv, out, *norms[2:])
    given = (x, *parameters, HEADS, EPSILON)
    if operation.endswith("forward"):
        return (lambda: attention.forward(*given)), lambda: plain_attention.forward(*double(given))
    kept = attention.forward(*given)[1:]
    backward = (grad_y, x, *parameters, *kept)
    return (lambda: attention.backward(*backward)), lambda: plain_attention.backward(
        *double(backward)
    )


@lru_cache(maxsize=4)
def truth(
    operation: str, shape: str, size: tuple[int, ...], device: str
) -> tuple[torch.Tensor, ...]:
    """What plain torch gives."""
    return calls(operation, shape, size, device)[1]()


def problem(
    kernel: str, shape: str, tile: tiles.Tiles, capability: int, size: tuple[int, ...], device: str
) -> str:
    """What is wrong with a candidate, in words; empty: nothing. It is compiled by this."""
    before = entry(kernel, shape, capability)
    operation = SPACE[kernel][0]
    try:
        exact = truth(operation, shape, size, device)
        use(kernel, shape, tile, capability)
        found = error(calls(operation, shape, size, device)[0](), exact)
    except Exception as failure:
        return f"{type(failure).__name__}: {str(failure).strip().splitlines()[-1][:120]}"
    finally:
        use(kernel, shape, before, capability)
    right = is_right(found, getattr(torch, shape.split()[0]))
    return "" if right else f"is off by {found:.2g}"


def _answer(future: "Future[str]") -> str:
    if not future.done():
        return LATE
    failure = future.exception()  # of the process, which is gone
    return future.result() if failure is None else f"{type(failure).__name__}: {failure}"


class Search:
    """Goes through the table.

    Args:
        device: where the kernels run.
        until: when it ends, of ``time.monotonic``.
        out: the file to write; None: none.
        few: candidates of an entry at the most.
        processes: that compile and check; 0: this one does.
    """

    def __init__(
        self,
        device: str,
        until: float,
        out: Path | None,
        few: int,
        processes: int,
    ) -> None:
        self.device, self.until, self.out, self.few, self.processes = (
            device,
            until,
            out,
            few,
            processes,
        )
        self.capability = tiles.capability_of(torch.device(device))
        self.seconds = Timer(torch.device(device), seconds=0.05, least=1)
        self.sizes = (TIMED, CHECKED) if device != "cpu" else (REHEARSED, REHEARSED)

    def run(self, shapes: tuple[str, ...]) -> None:
        """All entries of these shapes, until the time is over."""
        for shape in shapes:
            tried = {
                kernel: list(candidates(kernel, shape, entry(kernel, shape, self.capability)))
                for kernel in SPACE
            }
            asked = [(kernel, tile) for kernel in SPACE for tile in tried[kernel][: self.few]]
            answers = self._problems(shape, asked)  # nothing else computes while times are taken
            for kernel in SPACE:
                self._choose(kernel, shape, {t: answers[k, t] for k, t in asked if k == kernel})
                if not self._left():
                    print("the time is over", flush=True)
                    return

    def _problems(self, shape: str, asked: list[Candidate]) -> dict[Candidate, str]:
        size = self.sizes[1][shape.split()[1]]
        rest = (self.capability, size, self.device)
        if not self.processes:
            return {
                (kernel, tile): problem(kernel, shape, tile, *rest) if self._left() else LATE
                for kernel, tile in asked
            }
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(self.processes, mp_context=context)
        futures = {
            (kernel, tile): pool.submit(problem, kernel, shape, tile, *rest)
            for kernel, tile in asked
        }
        wait(futures.values(), timeout=self._left() / 2)
        answers = {candidate: _answer(future) for candidate, future in futures.items()}
        for child in multiprocessing.active_children():  # one may hang
            child.kill()
        pool.shutdown(cancel_futures=True)  # waits for the pool's thread, which takes their ends
        return answers

    def _left(self) -> float:
        return max(0.0, self.until - time.monotonic())

    def _choose(self, kernel: str, shape: str, answers: dict[tiles.Tiles, str]) -> None:
        """Time what is right, and write the best."""
        operation, size = SPACE[kernel][0], self.sizes[0][shape.split()[1]]
        call = calls(operation, shape, size, self.device)[0]
        best = entry(kernel, shape, self.capability)
        least = self.seconds(call)
        print(f"{kernel}, {shape}: {1e6 * least:.1f} us for {operation} {size}", flush=True)
        for tile, wrong in answers.items():
            if not self._left():
                break
            changed = {k: v for k, v in asdict(tile).items() if v != asdict(best)[k]}
            if not wrong:
                use(kernel, shape, tile, self.capability)
                taken = self.seconds(call)
                if taken < GAIN * least:
                    best, least = tile, taken
                use(kernel, shape, best, self.capability)
            print(f"  {changed}: {wrong or f'{1e6 * taken:.1f} us'}", flush=True)
        if self.out is not None:
            self.out.write_text(text(tiles.table()))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="after which it ends")
    parser.add_argument("--out", type=Path, help="file to write; default: the package's")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="that compile")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, interpreted")
    options = parser.parse_args()
    until = time.monotonic() + 60 * options.minutes
    if options.rehearse:
        sys.path.append(str(Path(__file__).parents[1] / "tests" / "gpu"))
        from interpreting import mended_interpreter

        with mended_interpreter():  # as it is, NumPy 2.5 stops Triton 3.6
            Search("cpu", until, options.out, few=1, processes=0).run(SHAPES[2:])
        return
    Search("cuda", until, options.out or TABLE, few=100, processes=options.processes).run(SHAPES)


if __name__ == "__main__":
    main()

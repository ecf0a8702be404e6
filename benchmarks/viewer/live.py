"""Tiles of the slide while the page predicts, beside the same without; and how fast it predicts.

    python benchmarks/viewer/live.py [--rounds 3] [--model nuclei]

Four clients pan over a slide at full size as in tiles.py, in turn while nothing is predicted and
while another page has a view predicted all the time. Latencies are wall time: of a round both are
measured one after the other, and their ratio is what counts where other work runs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from sample_slide import write_slide
from tiles import CLIENTS, Client, cpu_seconds, peak_mib

SIDE = 20_000
SCREEN = (1280, 720)


def asked(address: str, told: dict[str, Any] | None = None) -> Any:
    """What the server answers; with ``told``, to a POST of it."""
    data = None if told is None else json.dumps(told).encode()
    headers = {} if told is None else {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(address, data, headers)) as answer:
        return json.load(answer)


class Looking:
    """A page that moves on as soon as all that it shows is predicted."""

    def __init__(self, address: str) -> None:
        self.speeds: list[float] = []
        self.blocks = 0
        self._address, self._ended = address, threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Looking":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        rng = np.random.default_rng(1)
        place, count = rng.integers(0, SIDE - max(SCREEN), 2).tolist(), 0
        while not self._ended.is_set():
            told = {"slide": 0, "models": [0], "since": [count], "window": [*place, *SCREEN]}
            answer = asked(f"{self._address}live/look", told)
            (picture,) = answer["pictures"]
            count, self.blocks = picture["count"], self.blocks + len(picture["put"])
            self.speeds.append(answer["speed"])
            if not picture["missing"]:
                place = rng.integers(0, SIDE - max(SCREEN), 2).tolist()
            self._ended.wait(0.5)


def pan(address: str, seed: int) -> tuple[float, float]:
    """p50 and p95 of the clients' tiles in ms."""
    clients = [Client(address, SIDE, seed + number) for number in range(CLIENTS)]
    threads = [threading.Thread(target=client.pan, args=(0,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = [each for client in clients for each in client.seconds]
    p50, p95 = (1e3 * np.percentile(seconds, (50, 95))).tolist()
    return p50, p95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="nuclei")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        slide = Path(folder) / "slide.tif"
        write_slide(slide, SIDE)
        gsd = Path(sys.executable).with_name("gsd")
        command = [gsd, "view", slide, "--model", arguments.model, "--no-browser"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        while not asked(f"{address}live")["models"][0]["classes"]:
            time.sleep(0.2)
        with Looking(address) as first:  # lays the slide out
            begin = time.monotonic()
            while not first.blocks:
                time.sleep(0.1)
        print(f"load {os.getloadavg()[0]:.1f}; first square {time.monotonic() - begin:.0f} s")
        ratios = []
        for number in range(arguments.rounds):
            time.sleep(4.0)  # what was looked at is forgotten
            alone = pan(address, 10 * number)
            with Looking(address) as looking:
                time.sleep(1.0)
                before = cpu_seconds(server.pid), time.monotonic()
                beside = pan(address, 10 * number + CLIENTS)
                spent = cpu_seconds(server.pid) - before[0]
            share = spent / (time.monotonic() - before[1])
            ratios.append(beside[1] / alone[1])
            print(
                f"p50, p95 of a tile: {alone[0]:.1f}, {alone[1]:.1f} ms alone;"
                f" {beside[0]:.1f}, {beside[1]:.1f} ms while {looking.speeds[-1] / 1e6:.2f} Mpx/s"
                f" are predicted; the server takes {share:.2f} cores"
            )
        print(f"p95 beside and alone: {np.median(ratios):.2f} (median of {len(ratios)} pairs)")
        print(f"peak memory of the server: {peak_mib(server.pid):.0f} MiB")
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()

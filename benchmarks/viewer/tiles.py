"""What ``gsd view`` takes for a slide of 10 gigapixels: first picture, tiles, memory.

    python benchmarks/viewer/tiles.py [--side 100000] [--keep FOLDER]

Four clients pan over the slide at four zooms, two screens a second, six tiles at once each as
browsers do. Latencies are wall time, and mean something only where nothing else runs; CPU time is
that of the server's process.
"""

import argparse
import http.client
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from sample_slide import write_slide

from genselfdiff.viewer.tiles import SlideTiles, TilePlace

CLIENTS, AT_ONCE = 4, 6
SCREEN = (1280, 720)
STEPS, STEP_SECONDS = 20, 0.1
ZOOMS = (0, 1, 2, 3)
"""Levels that are panned over: full size, and half of the one before; files have 0, 2, 4 and 6."""


def cpu_seconds(process: int) -> float:
    """User and system time of a process until now."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024


class Client:
    """Pans over the slide, and notes how long each tile took."""

    def __init__(self, address: str, side: int, seed: int) -> None:
        self.place, self.side = urlsplit(address), side
        self.seconds: list[float] = []
        self.asked = 0
        self._rng = np.random.default_rng(seed)
        self._local = threading.local()

    def pan(self, level: int) -> None:
        width, height = (-(-pixels // 256) + 1 for pixels in SCREEN)
        across = -(-(self.side >> level) // 256)
        x, y = self._rng.integers(0, max(across - width - STEPS, 1), 2).tolist()
        known: set[tuple[int, int]] = set()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for step in range(STEPS):
                begin = time.perf_counter()
                seen = {
                    (column, row)
                    for column in range(x + step, min(x + step + width, across))
                    for row in range(y, min(y + height, across))
                }
                list(pool.map(lambda place: self.ask(level, *place), sorted(seen - known)))
                if not known:
                    self.seconds.clear()  # of the first screen, see "first picture"
                known |= seen
                time.sleep(max(begin + STEP_SECONDS - time.perf_counter(), 0))

    def ask(self, level: int, column: int, row: int) -> None:
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPConnection(self.place.netloc)
        begin = time.perf_counter()
        path = f"{self.place.path}slides/0/tiles/{level}/{column}/{row}"
        self._local.connection.request("GET", path)
        answer = self._local.connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        self.asked += 1
        self.seconds.append(time.perf_counter() - begin)


def measure_server(slide: Path, side: int) -> None:
    begin = time.perf_counter()
    command = [Path(sys.executable).with_name("gsd"), "view", slide, "--no-browser"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = server.stdout.readline().strip()
    whole = Client(address, side, 0)
    top = (side - 1).bit_length() - 8
    for level in range(top, top - 3, -1):  # what fits the screen
        across = -(-side // (256 << level))
        for i in range(min(across, 4) ** 2):
            whole.ask(level, i % across, i // across)
    first, cpu = time.perf_counter() - begin, cpu_seconds(server.pid)
    print(f"first picture: {first:.2f} s after the command, {cpu:.2f} s of CPU time")
    for level in ZOOMS:
        clients = [Client(address, side, seed) for seed in range(CLIENTS)]
        before = cpu_seconds(server.pid)
        threads = [threading.Thread(target=client.pan, args=(level,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        milliseconds = 1e3 * np.array([s for client in clients for s in client.seconds])
        spent = 1e3 * (cpu_seconds(server.pid) - before) / sum(c.asked for c in clients)
        print(
            f"level {level}: {len(milliseconds)} tiles, p50 {np.percentile(milliseconds, 50):.1f},"
            f" p95 {np.percentile(milliseconds, 95):.1f} ms; {spent:.2f} ms of CPU time a tile"
        )
    print(f"peak memory of the server: {peak_mib(server.pid):.0f} MiB")
    server.kill()
    server.wait()


def measure_tiles(slide: Path, side: int) -> None:
    """CPU time of single tiles, without a server."""
    tiles = SlideTiles(slide)
    for level in range(9):
        across = max((side >> level) // 256, 1)
        spent = []
        for column, row in np.random.default_rng(level).integers(0, across, (200, 2)).tolist():
            begin = time.thread_time()
            tiles.tile(TilePlace(level, column, row))
            spent.append(1e3 * (time.thread_time() - begin))
        p50, p95 = np.percentile(spent, (50, 95))
        print(f"level {level}: CPU time of a tile p50 {p50:.2f}, p95 {p95:.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=100_000)
    parser.add_argument("--keep", type=Path, help="folder that the slide is kept in")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        slide = (arguments.keep or Path(folder)) / f"slide_{arguments.side}.tif"
        if not slide.exists():
            write_slide(slide, arguments.side)
        print(f"{slide.stat().st_size / 2**30:.2f} GiB; load {os.getloadavg()[0]:.1f}")
        measure_tiles(slide, arguments.side)
        measure_server(slide, arguments.side)


if __name__ == "__main__":
    main()

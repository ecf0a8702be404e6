"""Files damaged by the hundred: each gives a mask or an error that explains itself.

Each is segmented in a process of its own kind, so that a crash inside a codec is seen. What is
tried depends on a seed and a number only; to see one again:
``echo NUMBER | python tests/fuzz/worker.py FOLDER SEED`` on the folder of ``corpus.write_corpus``.
"""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pytest

HERE = Path(__file__).parent
SEED = 1
SECONDS = 60.0
"""For one file, on a machine that does other things too."""
BYTES = 2**30
"""That one file may take; it has 300,000 at most."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("zarr")
    pytest.importorskip("pydicom")
    folder = tmp_path_factory.mktemp("corpus")
    generated = HERE.parent / "slides"
    places = [str(HERE), str(generated / "dicom"), str(generated / "colours")]
    code = f"import sys; sys.path[:0] = {places!r}; import pathlib, corpus;"
    code += f"corpus.write_corpus(pathlib.Path({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", code], check=True)
    return folder


def serve(corpus: Path, numbers: "Queue[int]") -> list[dict[str, Any]]:
    """Have one process after another try numbers; a process that dies or hangs tells as well."""
    outcomes: list[dict[str, Any]] = []
    while not numbers.empty():
        command = [sys.executable, str(HERE / "worker.py"), str(corpus), str(SEED)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin and process.stdout
            alive = True
            while alive:
                try:
                    number = numbers.get_nowait()
                except Empty:
                    break
                timer = threading.Timer(SECONDS + 30, process.kill)  # it may have to start yet
                timer.start()
                try:
                    print(number, file=process.stdin, flush=True)
                    answer = process.stdout.readline()
                except BrokenPipeError:
                    answer = ""
                timer.cancel()
                alive = bool(answer)
                if alive:
                    outcomes.append(json.loads(answer))
            process.stdin.close()
            status = process.wait()
            if not alive:
                outcomes.append({"number": number, "outcome": f"ended with {status}"})
    return outcomes


def try_all(corpus: Path, numbers: range) -> None:
    waiting: Queue[int] = Queue()
    for number in numbers:
        waiting.put(number)
    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        parts = pool.map(lambda _: serve(corpus, waiting), range(workers))
        outcomes = [outcome for part in parts for outcome in part]
    assert sorted(outcome["number"] for outcome in outcomes) == list(numbers)
    wrong = [o for o in outcomes if o["outcome"] not in ("mask", "refused")]
    wrong += [o for o in outcomes if o.get("seconds", 0) > SECONDS or o.get("bytes", 0) > BYTES]
    wrong += [o for o in outcomes if o["outcome"] == "refused" and "\n" in o["message"]]
    assert not wrong, "\n".join(json.dumps(outcome, indent=1) for outcome in wrong)
    for expected in ("mask", "refused"):  # else the damage is too little, or too much
        assert sum(o["outcome"] == expected for o in outcomes) > len(outcomes) / 10


def test_a_sample_of_damaged_slides(corpus: Path) -> None:
    try_all(corpus, range(50))


@pytest.mark.soak
def test_a_thousand_damaged_slides(corpus: Path) -> None:
    try_all(corpus, range(50, 1050))

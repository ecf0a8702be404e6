"""Looks at the workers of a Dask cluster: those that would get no work, and those that differ."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genselfdiff.doctor.findings import Finding, ok, warning, wrong
from genselfdiff.errors import GsdError, one_line
from genselfdiff.fleet.clusters import connect
from genselfdiff.models.model_file import LoadedModel
from genselfdiff.segmenting.options import Options
from genselfdiff.text import counted

if TYPE_CHECKING:
    from distributed import Client

WAIT_SECONDS = 60.0
"""For the first worker, and for the answers of those that are there."""

_PACKAGES = ("python", "distributed")

_NAMED = 3
"""Workers that are named of those that have the same trouble."""


def cluster_findings(place: str, model: LoadedModel, folder: Path) -> Iterator[Finding]:
    """All of a cluster.

    Args:
        place: as ``connect`` takes it.
        model: that a run would have its workers load.
        folder: of the masks.
    """
    try:
        with connect(place) as client:
            yield from workers(client, model, folder)
    except GsdError as error:
        yield wrong("cluster", one_line(error))


def workers(client: "Client", model: LoadedModel, folder: Path) -> Iterator[Finding]:
    """Ask each worker what it is, as a run does before it gives out work."""
    from genselfdiff.fleet.machines import Machine, differences_of, refusal_of

    with suppress(TimeoutError):
        client.wait_for_workers(1, timeout=WAIT_SECONDS)
    answers = _greeted(client, model, folder)
    yield _counted("cluster", answers, client)
    machines = {name: told for name, told in answers.items() if isinstance(told, Machine)}
    refused: dict[str, list[str]] = defaultdict(list)
    for name, answer in answers.items():
        if name not in machines:
            refused[f"does not work: {_told(answer)}"].append(name)
    often = Counter(machine.device for machine in machines.values())
    first, differing = None, defaultdict(list)
    for name, machine in sorted(machines.items(), key=lambda each: -often[each[1].device]):
        if refusal := refusal_of(machine, model.digest, folder, first):
            refused[f"gets no work: {refusal}"].append(name)
            continue
        first = first or machine
        for what, here, there in differences_of(machine, first):
            differing[f"{what} {here}, elsewhere {there}: a few pixels can differ"].append(name)
    for text, names in refused.items():
        yield wrong("worker", f"{_listed(names)}: {text}")
    advice = "use workers of one kind, or bear it; --precision float32 makes the precision one"
    for text, names in differing.items():
        yield warning("worker", f"{_listed(names)}: {text}", advice)
    yield from _packages(client)


def _greeted(client: "Client", model: LoadedModel, folder: Path) -> dict[str, object]:
    """What each worker answers: a ``Machine``, or what went wrong."""
    from distributed import wait

    from genselfdiff.fleet.worker import Order, forget, greet

    order = Order.of(model, Options(), folder.absolute())
    futures = {
        name: client.submit(greet, order, workers=[name], pure=False) for name in client.nthreads()
    }
    with suppress(TimeoutError):
        wait(list(futures.values()), timeout=WAIT_SECONDS)
    answers: dict[str, object] = {}
    for name, future in futures.items():
        try:
            answers[name] = future.result(timeout=1)
        except Exception as error:
            answers[name] = error
    client.cancel(list(futures.values()))
    leaving = [client.submit(forget, workers=[name], pure=False) for name in answers]
    with suppress(TimeoutError):
        wait(leaving, timeout=10)
    return answers


def _counted(subject: str, answers: Mapping[str, object], client: "Client") -> Finding:
    address = client.scheduler.address
    if answers:
        workers = counted(len(answers), "worker")
        return ok(subject, f"{address}: {workers}; dashboard {client.dashboard_link}")
    return wrong(
        subject,
        f"{address}: no worker came within {WAIT_SECONDS:.0f} s",
        f"start some: dask worker {address}; of a batch system, look at its queue",
    )


def _packages(client: "Client") -> Iterator[Finding]:
    """Python and Dask of the workers, which have to read what this process sends."""
    told: Any = client.get_versions(check=False)
    here = told["client"]["packages"]
    differing: dict[str, list[str]] = defaultdict(list)
    for name, versions in {"scheduler": told["scheduler"], **told["workers"]}.items():
        for package in _PACKAGES:
            there = ((versions or {}).get("packages") or {}).get(package)
            if there is not None and _minor(there) != _minor(here[package]):
                differing[f"{package} {there}, here {here[package]}"].append(name)
    for text, names in differing.items():
        advice = "install the same there as here: what is sent may not be understood"
        yield warning("versions", f"{_listed(names)}: {text}", advice)


def _minor(version: str) -> list[str]:
    return str(version).split(".")[:2]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _told(answer: object) -> str:
    if isinstance(answer, TimeoutError):
        return f"no answer within {WAIT_SECONDS:.0f} s; it is busy, or stuck"
    return one_line(answer) if isinstance(answer, Exception) else f"it answers {answer!r:.40}"

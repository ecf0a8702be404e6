"""All that ``gsd doctor`` looks at."""

from pathlib import Path

from genselfdiff.doctor.findings import Finding, warning
from genselfdiff.doctor.machine_checks import machine_findings
from genselfdiff.doctor.model_checks import look_at_model
from genselfdiff.doctor.slide_checks import slide_findings
from genselfdiff.doctor.storage_checks import storage_findings
from genselfdiff.storage.places import Place


def examine(
    slide: Place | None = None,
    model: str | Place | None = None,
    folder: Path | None = None,
    dask: str | None = None,
) -> dict[str, list[Finding]]:
    """What was found, by what was looked at: nothing is written that stays.

    Args:
        slide: also look at this slide.
        model: as ``find_model`` takes it.
        folder: where masks are to go; None: the folder that this process is in.
        dask: also look at the workers of this cluster, see ``fleet.clusters.connect``.

    Raises:
        InputError: ``dask`` names no cluster, or Dask is not installed.
    """
    folder = Path() if folder is None else folder
    sections = {
        "machine": list(machine_findings()),
        "storage": list(storage_findings(folder)),
    }
    loaded, sections["model"] = look_at_model(model)
    if slide is not None:
        info = None if loaded is None else loaded.info
        sections["slide"] = list(slide_findings(slide, info))
    if dask is not None and loaded is None:
        advice = "give a model that can be read: workers are asked to load it"
        sections["cluster"] = [warning("cluster", "was not looked at", advice)]
    elif dask is not None and loaded is not None:
        from genselfdiff.doctor.cluster_checks import cluster_findings

        sections["cluster"] = list(cluster_findings(dask, loaded, folder))
    return sections

"""What segmenting a slide has given."""

import json
from dataclasses import dataclass
from pathlib import Path

from genselfdiff.progress import duration
from genselfdiff.segmenting.output_files import OutputFiles
from genselfdiff.storage.places import Place, Url
from genselfdiff.text import counted, shown


@dataclass(frozen=True)
class SegmentResult:
    """What ``segment`` has done.

    ``width`` and ``height`` are those of slide and mask in pixels, ``mpp`` their micrometres per
    pixel, ``scale`` the model's pixel size in pixels of the slide, ``tiles`` those predicted,
    ``skipped`` those without tissue, ``pixels`` the mask's pixels of each class, of a slide of
    which only a region was predicted those in the region; ``objects`` the number of objects of
    each class, if they were looked for now. ``finished_before`` says that an earlier run has
    made the mask; ``blank_tiles`` are the slide's stored tiles that were damaged and taken for
    glass by this run; ``elsewhere`` is the folder that the files were sent to, if they were;
    ``share`` is the part of the rows that this run has predicted, less than 1 where it went on.
    """

    slide: Place
    files: OutputFiles
    width: int
    height: int
    mpp: float | None
    scale: float
    tiles: int
    skipped: int
    seconds: float
    device: str
    precision: str
    pixels: dict[str, int]
    objects: dict[str, int] | None
    finished_before: bool
    blank_tiles: int
    elsewhere: Url | None = None
    share: float = 1.0

    @property
    def areas(self) -> dict[str, float] | None:
        """Area of each class in square millimetres; None where the resolution is unknown."""
        if self.mpp is None:
            return None
        return {name: count * (self.mpp / 1000) ** 2 for name, count in self.pixels.items()}

    @property
    def speed(self) -> str:
        """How long this run took, and how fast it was, for people."""
        pixels = sum(self.pixels.values()) * self.share
        told = f"{duration(self.seconds)}, {pixels / 1e6 / max(self.seconds, 1e-9):.3g} Mpx/s"
        return told if self.share == 1 else f"{told} (the last {100 * self.share:.0f} % of it)"

    def places(self) -> list[Place]:
        """Where the files are now."""
        return [self._place(path) for path in self.files.all()]

    def to_json(self) -> str:
        """All of it as JSON: fields by their names, ``files`` by what they are, areas in mm2."""
        named = self.files._asdict().items()
        written = {name: self._place(path) for name, path in named if path is not None}
        content = vars(self) | {"files": written, "areas_mm2": self.areas}
        return json.dumps(content, indent=2, default=str)

    def summary(self) -> str:
        """A few lines for people: files, sizes, speed, and how much there is of each class."""
        total = sum(self.pixels.values())
        work = (
            "finished before by the same slide, model and settings"
            if self.finished_before
            else f"in {self.speed}"
        )
        lines = [
            f"{self._place(self.files.mask)}: {self.width} x {self.height} pixels,"
            f" {counted(self.tiles, 'tile')} predicted, {self.skipped} without tissue skipped,"
            f" {work} on {self.device} in {self.precision}"
        ]
        for name, count in self.pixels.items():
            area = "" if self.areas is None else f", {_area(self.areas[name])}"
            lines.append(f"  {name}: {100 * count / total:.2f} %{area}")
        if self.blank_tiles:
            lines.append(f"{self.slide}: damaged tiles taken for glass: {self.blank_tiles}")
        if self.files.overlay is not None:
            lines.append(f"{self._place(self.files.overlay)}: overlay")
        if self.files.probabilities is not None:
            lines.append(f"{self._place(self.files.probabilities)}: probabilities")
        if self.objects is not None:
            counts = ", ".join(f"{count} {name}" for name, count in self.objects.items())
            beside = (self.files.geojson, self.files.table, self.files.labels)
            places = [self._place(path) for path in beside if path is not None]
            written = ", ".join(map(str, places or [self._place(self.files.mask)]))
            lines.append(f"{written}: objects: {counts}")
        if self.files.report is not None:
            lines.append(f"{self._place(self.files.report)}: report")
        return "\n".join(map(shown, lines))

    def _place(self, path: Path) -> Place:
        """Where a file of the result is now."""
        is_sent = self.elsewhere is not None and path.parent == self.files.mask.parent
        return self.elsewhere / path.name if is_sent and self.elsewhere is not None else path


def _area(square_millimetres: float) -> str:
    if square_millimetres < 0.001:
        return f"{square_millimetres * 1e6:.0f} um2"
    return f"{square_millimetres:.3f} mm2"

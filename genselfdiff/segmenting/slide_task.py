"""A slide that is open, and how a model predicts it."""

from dataclasses import dataclass, replace

from genselfdiff.inference.predictor import Predictor
from genselfdiff.segmenting.jobs.job import Job
from genselfdiff.segmenting.jobs.mask_description import MaskDescription
from genselfdiff.segmenting.layout import Layout, lay_out
from genselfdiff.segmenting.options import Options
from genselfdiff.slides import Slide


@dataclass(frozen=True)
class SlideTask:
    """What is predicted, by whom, and how.

    Attributes:
        source: the slide, open.
        predictor: predicts its tiles.
        options: what the user has chosen.
        layout: what is predicted of the slide.
        progress: see ``progress_bar``.
    """

    source: Slide
    predictor: Predictor
    options: Options
    layout: Layout
    progress: bool | None = False

    @classmethod
    def of(
        cls, source: Slide, predictor: Predictor, options: Options, progress: bool | None = False
    ) -> "SlideTask":
        """Lay out a slide; errors as of ``lay_out``."""
        layout = lay_out(source, predictor.model.info, options, progress)
        return cls(source, predictor, options, layout, progress)

    def rows(self, first: int, last: int) -> "SlideTask":
        """Only these rows of the window, see ``Layout.rows``."""
        return replace(self, layout=self.layout.rows(first, last))

    def describe(self, job: Job) -> MaskDescription:
        """What a mask tells that is made of this."""
        grid = self.layout.grid
        return MaskDescription(grid.tiles, grid.skipped, self.layout.scale, job)

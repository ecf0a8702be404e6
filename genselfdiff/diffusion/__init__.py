"""Stage 1: noise schedules, the training objective and sampling."""

from genselfdiff.diffusion.objective import NoisePrediction
from genselfdiff.diffusion.sampling import sample_ancestral, sample_ddim
from genselfdiff.diffusion.schedule import NoiseSchedule

__all__ = ["NoisePrediction", "NoiseSchedule", "sample_ancestral", "sample_ddim"]

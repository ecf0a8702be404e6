"""Options of objects, which several commands have."""

from genselfdiff.segmenting.options import Options
from gsd.options import Command, setting_option


def object_options(command: Command) -> Command:
    """Add --instances, --seed-distance and --min-area."""
    for name in ("min_area", "seed_distance", "instances"):
        command = setting_option(Options, name, ranges=True)(command)
    return command

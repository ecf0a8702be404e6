"""Networks of other people's that are stored as weights alone: state dicts, and what they fit."""

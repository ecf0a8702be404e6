"""Which fields of slides to annotate: candidates, what is unsure of them, and a varied choice."""

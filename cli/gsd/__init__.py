"""The command line of genselfdiff: parses, calls the package, reports."""

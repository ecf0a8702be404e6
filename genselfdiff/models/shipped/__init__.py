"""Models that gsd is shipped with: which there are, their weights, their cards."""

"""What a run tells of its slides: a page of each, and a table of all."""

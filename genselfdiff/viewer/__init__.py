"""A page in the browser that shows slides with their masks; without torch."""

"""Commands of gsd that are begun in the page, and run beside the server."""

"""Where a slide is unlike known tissue: statistics of its cells, and a map of them."""

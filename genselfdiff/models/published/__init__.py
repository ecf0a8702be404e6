"""Models as folders that can be passed on: weights, description and a page about them."""

"""What is looked at in a model file before torch loads it."""

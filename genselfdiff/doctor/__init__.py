"""What could keep gsd from working well here: the machine, its storage, a model, a slide."""

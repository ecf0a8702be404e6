"""Networks by name, their weights, the form for export, and the exported model as a file."""

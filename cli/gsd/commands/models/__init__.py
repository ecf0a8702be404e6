"""Commands that make model files and pass them on."""

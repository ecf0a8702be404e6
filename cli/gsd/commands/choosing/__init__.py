"""Commands that help to choose what is annotated."""

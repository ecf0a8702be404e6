"""Both training stages, their run folders, and what is made of a finished run."""

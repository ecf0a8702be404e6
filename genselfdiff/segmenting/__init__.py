"""What `gsd segment` does: one slide or many, whole or in parts, and what lies beside a mask."""

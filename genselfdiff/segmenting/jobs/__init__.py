"""What decides the pixels of a mask, what the mask says of it, and what is there already."""

"""4x4 convolutions of stride 2 and padding 1, and their transposes."""

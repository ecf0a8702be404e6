"""3x3 convolutions of stride 1 and padding 1."""

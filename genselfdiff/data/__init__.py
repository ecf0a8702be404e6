"""Training data: unlabelled tiles, labelled pairs, splits and augmentation."""

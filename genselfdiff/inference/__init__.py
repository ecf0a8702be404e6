"""Using a trained model: the exported file, and prediction of images and slides tile by tile."""

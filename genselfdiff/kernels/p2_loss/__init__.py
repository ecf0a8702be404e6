"""The time-weighted squared error of diffusion pretraining."""

"""What a run is told, and how that is completed from files and presets."""

"""Drawing on slides: what people correct of masks, and what comes of it."""

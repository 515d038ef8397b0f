"""Hot reads from memory: what may be kept, for whom it still counts, and what a write makes of it."""

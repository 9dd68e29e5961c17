"""What came out: the frame, its scores, limits on them, baselines, checks of the measurement."""

"""Time series: victims that stop reading, leave early or merge tokens, and what they read."""

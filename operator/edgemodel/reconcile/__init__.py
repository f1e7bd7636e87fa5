"""From what was observed to what follows: pure decisions and pure builders of child objects."""

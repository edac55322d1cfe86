"""From an interaction log to histories, splits and what an evaluation ranks."""

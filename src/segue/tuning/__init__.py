"""The search for settings: which values of a preset's few important fields validate best."""

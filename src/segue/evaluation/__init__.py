"""Evaluation: who is ranked against what, the metrics of the ranks, and the baselines."""

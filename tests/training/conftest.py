"""Chooses the backend before a test module imports Keras."""

from segue.backend import load_keras

load_keras()

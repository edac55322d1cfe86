"""The encoder: item ids in, states out; its layers, fast paths, losses and negatives."""

from segue.backend import load_keras

load_keras()

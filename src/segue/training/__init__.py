"""From histories to a trained model: packed rows, batches, the trainer and its checkpoints."""

from segue.backend import load_keras

load_keras()

"""Encoders: what turns a history's item vectors into states; one file each, registered by name."""

from segue.model.encoders import esasrec, gru4rec, sasrec, sasrec_original
from segue.model.encoders.protocol import Attentive, Encoder

__all__ = ["Attentive", "Encoder", "esasrec", "gru4rec", "sasrec", "sasrec_original"]

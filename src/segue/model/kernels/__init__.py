"""Fast paths for attention, dropout and normalisation, each equal to a plain expression.

Written once on `keras.ops`, so that they serve every backend.
"""

"""What segue expects of whoever adds an encoder, a loss, an item tower, an index or a store.

Each `check_...` raises `AssertionError` with a sentence where a promise is broken. They need no
test framework, and segue's own parts are held to them too.
"""

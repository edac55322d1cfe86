"""How much is taken at once."""

MAX_ID_LENGTH = 256
MAX_HISTORY = 10_000
MAX_REQUESTS = 64
MAX_EVENTS = 1_000
# Of a filter, in all; each looks at every item.
MAX_CONDITIONS = 16
MAX_VALUES = 1_000
MAX_BODY_BYTES = 2**20
MAX_INTEGER = 2**63 - 1
# Beyond it JavaScript, and so many a reader of JSON, confounds neighbouring integers.
MAX_SAFE_INTEGER = 2**53 - 1

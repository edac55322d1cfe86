"""The service: a run over HTTP, with a memory of events and a page to look at."""

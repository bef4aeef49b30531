"""The service that a team would write around each peer. Each module runs in that peer's own
virtual environment, is imported nowhere else, and holds the settings that the peer's
documentation gives for batching, with the reason for each."""

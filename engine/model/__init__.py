"""The model: attention over the graph and over the session, and a ranker. Engine and trainer share it."""

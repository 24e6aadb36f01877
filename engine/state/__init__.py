"""The state: a deterministic fold of the log into ids, neighbor rings, sessions, popularity and the catalog."""

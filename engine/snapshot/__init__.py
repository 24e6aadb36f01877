"""Snapshots: the state and the log positions that it reflects, on disk, each there whole or not at all."""

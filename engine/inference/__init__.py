"""Keeps every embedding up to date with the graph, recomputing only what an event touched."""

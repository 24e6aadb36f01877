"""Accepted models, kept where every engine finds them, and the topic that says which of them serves."""

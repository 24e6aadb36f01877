"""Offline evaluation: files of events, published protocols, honest peers, and what they score."""

"""Alert rules for Prometheus, their tests, and a rehearsal in which each of them is seen to fire and to clear."""

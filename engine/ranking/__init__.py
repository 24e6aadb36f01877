"""From a query to a list: candidates, the ranker's order, filters."""

"""Numbers, compiled: elementary functions, and the layers of a network. Nothing here knows of recommenders."""

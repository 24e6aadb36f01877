"""The container image, and its steps taken without a container engine."""

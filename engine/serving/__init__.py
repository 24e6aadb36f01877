"""The gRPC server: requests are checked here, answered by the engine's thread, and streams get what changed."""

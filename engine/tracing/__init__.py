"""Traces by OpenTelemetry, behind an extra. Rooms know `spans` alone, which does nothing until tracing is started."""

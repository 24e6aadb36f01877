"""The commands of `ousel-engine` beside `serve`, a module each."""

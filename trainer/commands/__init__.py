"""The commands of `ousel-trainer`, a module each; `evaluate` lies with what it runs."""

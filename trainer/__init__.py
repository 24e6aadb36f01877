"""The Ousel trainer: folds the same log as the engine, trains, evaluates and pushes weights into the running engine."""

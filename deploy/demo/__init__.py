"""The demo: broker, engine and trainer on a year of real purchases (`python -m deploy.demo`)."""

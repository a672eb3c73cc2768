"""Tuning in a fixed order: checks before a run, the learning rate, several runs beside each other."""

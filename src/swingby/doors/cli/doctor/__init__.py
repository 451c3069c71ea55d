"""Checks of this machine, the levels and a base."""

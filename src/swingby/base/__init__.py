"""Bases: the storage the user has. One contract, its implementations, and wrappers with the same contract."""

"""Levels that hold bytes: segments as pairs of files, and the rules of what stays."""

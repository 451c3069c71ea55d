"""Swingby."""

"""Datasets and loaders over the read path."""

"""Benchmarks with names, limits and peers."""

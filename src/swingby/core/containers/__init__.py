"""Containers that are read without unpacking: where their samples lie, and how bytes of a range become a sample's."""

"""Manifests: the immutable listing of a prefix, cut into packs, kept in sorted shards."""

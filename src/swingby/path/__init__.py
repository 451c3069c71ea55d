"""The one read: from indices or a key to bytes, by way of maps, the keeper, or the base itself."""

"""The keeper: the one process that writes a home's levels, and the client that speaks with it."""

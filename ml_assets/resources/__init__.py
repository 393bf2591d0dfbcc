"""Doors to the outside: the warehouse, the lake and the model registry."""

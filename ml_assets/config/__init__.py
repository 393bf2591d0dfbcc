"""Configuration files, as package data: `base.yaml`, then one file per environment."""

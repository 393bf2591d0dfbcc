"""The use cases: one folder each, holding its declaration, contracts and source query."""

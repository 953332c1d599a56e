"""Train encoders that adapt well to few examples; planned, see papers.toml."""

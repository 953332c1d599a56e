"""Score examples, then keep, weigh or mix them; planned, see papers.toml."""

"""Make a model smaller and faster, and say who pays for it; planned, see papers.toml."""

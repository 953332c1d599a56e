"""Which span, event or cell; planned, see papers.toml."""

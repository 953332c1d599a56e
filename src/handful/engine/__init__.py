"""Where work runs: many cores, many machines; planned, see papers.toml."""

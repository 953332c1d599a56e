"""Index, search, rerank and prune; planned, see papers.toml."""

"""Change the encoder itself, a little: prompts, adapters, low-rank updates; planned, see papers.toml."""

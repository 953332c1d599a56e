"""Make samples: flows, diffusion, language models; planned, see papers.toml."""

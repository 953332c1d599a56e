"""Make samples: texts written or rephrased by language models; flows and diffusion are planned, see papers.toml."""

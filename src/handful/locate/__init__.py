"""Where in the image, the video or the recording; planned, see papers.toml."""

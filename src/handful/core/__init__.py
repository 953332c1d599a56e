"""Pure tensor mathematics: no files, no paper's name, one subject a file."""

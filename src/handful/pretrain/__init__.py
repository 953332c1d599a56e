"""Train models that adapt well to few examples: on instructions, on tasks made of plain text; more is planned."""

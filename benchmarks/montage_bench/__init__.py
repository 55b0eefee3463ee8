"""The bench for coherent, controlled montages: fixed guides, prompts and seeds, drawn by several methods, scored."""

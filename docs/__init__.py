"""The documents, and the programs that draw their pictures and make a site of them."""

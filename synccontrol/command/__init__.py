"""The command line: flags -> config -> one library call -> files."""

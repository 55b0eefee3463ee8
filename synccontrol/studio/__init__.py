"""The page: wide images composed in a browser, for one person at home or a few behind a password."""

"""Do the tests notice a wrong line? See `__main__`."""

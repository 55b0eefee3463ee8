"""What wide guides need: slices, views, rings, and one depth over all of them."""

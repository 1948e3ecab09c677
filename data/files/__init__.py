"""Files of images: reading, caching, packing, and what may be read."""

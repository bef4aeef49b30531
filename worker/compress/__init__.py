"""Compression of the emoji GAN: fewer channels, a student taught by its teacher, 8 bits."""

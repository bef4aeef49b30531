"""The text-conditioned GAN behind `emoji-gan`: data, networks, objective, training and
compression, each in one file. Knows no queue, no store and no server."""

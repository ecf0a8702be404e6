"""Encoders of other people's, and the network that is made of one."""

"""Hugging Face model families: one file each, a table that maps configuration and weights both ways.

A new family is one file here, one line in `registry.py` and one entry in the parity test.
"""

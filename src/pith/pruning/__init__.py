"""Fewer weights: single ones, heads, channels, parts and whole blocks; one method a file.

Where a plain Transformers model can hold what is left, the result is one.
"""

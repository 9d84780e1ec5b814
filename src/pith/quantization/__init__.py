"""Weights in few bits, one method a file.

Each decides which code stands for which weight; how codes are packed, multiplied, saved and loaded is the weights'
runtime.
"""

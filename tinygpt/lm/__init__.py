"""Pure compute: tensors and arrays in, tensors and records out.

No paths, no printing, no clock, no global seed.
"""

"""A trained model in the formats of other programs: one folder that they can read.

model.py is what is exported, target.py the folder it goes to; each format is a module with a
function `write`, and formats.py lists them.
"""

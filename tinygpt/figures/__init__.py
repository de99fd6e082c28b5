"""Turn analyses into pictures, with matplotlib's object API only, never pyplot.

Call everything here inside `style.style()`.
"""

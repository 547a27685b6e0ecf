"""csoftmax beside plain NumPy, pure Python and the libraries that have the same functions."""

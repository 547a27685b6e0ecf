"""csoftmax beside plain NumPy, pure Python and the libraries that have the same functions.

====================================  ===========
to add                                go to
====================================  ===========
a library, an operation, a shape      `table`
a reference for an operation's error  `accuracy`
a limit that the machine sets         `limits`
points of a curve                     `sweeps`
a column or table of the text         `report`
a chart                               `charts`
====================================  ===========

`measure` puts table, limits and accuracy together for one case; `timing` lets its contenders take
turns; `ratios` compares their times; `digits` is a whole job; `__main__` says how much is measured.
"""

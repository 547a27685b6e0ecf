"""csoftmax beside plain NumPy, pure Python and the libraries that have the same functions.

====================================  ===========
to add                                go to
====================================  ===========
a job                                 `jobs`
company, a call in it                 `company`
a library, an operation, a shape      `table`
a reference for an operation's error  `accuracy`
a limit that the machine sets         `limits`
points of a curve                     `sweeps`
a column or table of the text         `report`
a chart                               `charts`
====================================  ===========

`processes` gives jobs and calls in company a process each; `load` notes what else the machine did.
`measure` puts table, limits and accuracy together for one case; `timing` lets its contenders take
turns; `ratios` compares their times; `__main__` says how much is measured.
"""

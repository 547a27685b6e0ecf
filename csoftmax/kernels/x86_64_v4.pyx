# cython: language_level=3
include "entry.pxi"

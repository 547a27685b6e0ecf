# cython: language_level=3
include "kernels.pxi"

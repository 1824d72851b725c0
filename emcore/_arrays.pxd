"""What is done with small arrays at every step, without the calls that would take NumPy longer than the numbers."""

cimport numpy as cnp
from libc.math cimport isfinite


cdef inline bint finite(const double *x, Py_ssize_t n) noexcept nogil:
    """Tell whether n numbers are finite."""
    cdef Py_ssize_t i
    for i in range(n):
        if not isfinite(x[i]):
            return False
    return True


cdef inline bint equal(const double *x, const double *y, Py_ssize_t n) noexcept nogil:
    """Tell whether n numbers are the same."""
    cdef Py_ssize_t i
    for i in range(n):
        if x[i] != y[i]:
            return False
    return True


cdef inline cnp.ndarray as_doubles(object array):
    """Return an array as a C-contiguous one of float64, itself where it is that."""
    return cnp.PyArray_FROM_OTF(array, cnp.NPY_DOUBLE, cnp.NPY_ARRAY_CARRAY_RO | cnp.NPY_ARRAY_ENSUREARRAY)


cdef inline cnp.ndarray zeros(int ndim, Py_ssize_t a, Py_ssize_t b=1, Py_ssize_t c=1):
    """Return an array of float64 of the first `ndim` of these lengths, filled with 0."""
    cdef cnp.npy_intp[3] shape
    shape[0], shape[1], shape[2] = a, b, c
    return cnp.PyArray_ZEROS(ndim, shape, cnp.NPY_DOUBLE, 0)


cdef inline cnp.ndarray like(cnp.ndarray array):
    """Return a new array of float64 of the shape of another one, with anything in it."""
    return cnp.PyArray_EMPTY(cnp.PyArray_NDIM(array), cnp.PyArray_DIMS(array), cnp.NPY_DOUBLE, 0)


cdef inline double *data(cnp.ndarray array) noexcept nogil:
    """Return where the numbers of an array are."""
    return <double *> cnp.PyArray_DATA(array)

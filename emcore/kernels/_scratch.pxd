"""How scratch memory is divided into parts, in doubles: aligned and, with the address sanitizer, with gaps between them."""

cdef extern from "fence.h" nogil:
    const bint EMC_FENCED
    Py_ssize_t emc_room(Py_ssize_t size)
    void emc_fence(void *part, Py_ssize_t size, Py_ssize_t room)


cdef inline Py_ssize_t room(Py_ssize_t doubles) noexcept nogil:
    """Return what a part takes up."""
    return emc_room(8 * doubles) // 8


cdef inline void fence(double *part, Py_ssize_t doubles, Py_ssize_t whole) noexcept nogil:
    """Let nothing but the first numbers of a whole part be touched."""
    emc_fence(part, 8 * doubles, 8 * whole)


cdef inline double *carve(double **free, Py_ssize_t doubles) noexcept nogil:
    """Return a part that begins where memory is free, and move that on."""
    cdef double *part = free[0]
    cdef Py_ssize_t whole = room(doubles)
    fence(part, doubles, whole)
    free[0] = part + whole
    return part

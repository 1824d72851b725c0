"""One pass over a block: panels, slots and threads are here, and nowhere else.

A block is cut into panels of a few hundred rows that stay in cache, and the panels into slots. Each slot adds up its own
panels in order; the slots are merged in order at the end. How a block is cut depends on the rows and the statistics only, so
the sums are the same to the last bit whichever thread took which slot.

          block   |-panel-|-panel-|-panel-|-panel-|-panel-|-panel-| ...
          slots   [------ 0 ------][------ 1 ------][------ 2 ------] ...      any thread takes any slot
          stats    0 + 1 + 2 + ...                                             always in this order
"""

import os
from typing import NamedTuple

import numpy as np

cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_New
from cython.parallel cimport prange, threadid
from emcore.kernels._scratch cimport EMC_FENCED, carve, fence, room
from libc.float cimport DBL_MAX
from libc.stdint cimport uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

cnp.import_array()

cdef extern from "emc.h" nogil:
    const emc_table *emc_select(const char *name)
    const emc_table *emc_current()
    const emc_table *emc_target(int i, int *runs)

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    #define EMC_THREADED 1
    #else
    #define EMC_THREADED 0
    #define omp_get_max_threads() 1
    #define omp_get_num_procs() 1
    #endif
    """
    const bint EMC_THREADED
    int omp_get_max_threads() nogil
    int omp_get_num_procs() nogil

cdef enum:
    MAX_SLOTS = 64
    SLOT_BYTES = 16 << 20      # what the statistics of all slots may take,
    FEW_SLOTS = 4              # but so many there are
    FEW_SLOTS_BYTES = 256 << 20  # up to this
    KEPT_BYTES = 64 << 20      # scratch memory up to this is kept for the next pass
    SMALL_PASS = 1000000       # rows x statistics below which starting threads costs more than it saves

cdef double INTERRUPTIBLE = 1e10  # rows x statistics, about a second, after which a pass looks whether it is interrupted
cdef bint _forked = False
# What runs in this process, counted under the GIL.
cdef int _passes = 0
cdef Py_ssize_t _workers = 0


# What is wrong with EMCORE_CPU, until a target is chosen that is there.
cdef str _refused = None


cdef const emc_table *table() noexcept nogil:
    return emc_current()


def select_target(str name=None):
    """Choose the CPU target of all later passes and return its name.

    Parameters
    ----------
    name : str, optional
        "baseline", "avx2", "avx512" or "neon"; by default the best one that this CPU runs.

    Raises
    ------
    ValueError
        When the target is unknown, was not built, or does not run on this CPU.
    RuntimeError
        While a pass runs, in whatever thread: how much memory it took is the target's own.

    Notes
    -----
    What is refused changes nothing.
    """
    global _refused
    cdef bytes encoded
    able = [target for target, runs in targets().items() if runs]
    if name is not None and name not in able:
        raise ValueError(f"CPU target {name!r} is not available; on this machine: {', '.join(able)}")
    if _passes > 0:
        raise RuntimeError("the CPU target cannot change while a pass runs")
    if name is None:
        emc_select(NULL)
    else:
        encoded = name.encode()
        emc_select(encoded)
    _refused = None
    return target()


def _select_from_environment():
    """Choose the target that EMCORE_CPU names. Where there is none such no pass runs, until one is chosen."""
    global _refused
    name = os.environ.get("EMCORE_CPU")
    if not name:
        return
    able = [target for target, runs in targets().items() if runs]
    if name in able:
        select_target(name)
    else:
        _refused = f"EMCORE_CPU must name a CPU target that runs here, {' or '.join(map(repr, able))}, got {name!r}"


cdef int check_target() except -1:
    """Raise ValueError where EMCORE_CPU names no target."""
    if _refused is not None:
        raise ValueError(_refused)
    return 0


def targets():
    """Return the CPU targets that were built, best first, each with whether this CPU runs it."""
    cdef int i = 0, runs = 0
    cdef const emc_table *t = emc_target(0, &runs)
    found = {}
    while t != NULL:
        found[t.name.decode()] = bool(runs)
        i += 1
        t = emc_target(i, &runs)
    return found


def target():
    """Return the name of the CPU target in force.

    Raises
    ------
    ValueError
        When EMCORE_CPU names none that runs here, and none was chosen since: no pass runs then.
    """
    check_target()
    return table().name.decode()


def single_lanes():
    """Tell whether the CPU target in force has lanes of float32."""
    return table().gaussian_mixture_single != NULL


def abi():
    """Return the version of the compiled interface, ``EMC_ABI`` of ``emc.h``."""
    return EMC_ABI


def table_capsule():
    """Return the table of micro-kernels in force as a PyCapsule, for compiled code of others.

    Returns
    -------
    PyCapsule
        Named ``emcore.emc_table.<abi>`` (``EMC_CAPSULE``), holding a ``const emc_table *`` of ``emc.h``. Tables are constant
        and live as long as the process; after `select_target` ask again.

    Raises
    ------
    ValueError
        As `target`.
    """
    check_target()
    return PyCapsule_New(<void *> table(), EMC_CAPSULE, NULL)


def threaded():
    """Tell whether passes can use several threads (built with OpenMP)."""
    return bool(EMC_THREADED)


def openmp_threads():
    """Return how many threads OpenMP would use in the calling thread; 1 without OpenMP."""
    return omp_get_max_threads()


def freeze(arrays):
    """Make arrays read-only."""
    cdef cnp.ndarray array
    for array in arrays:
        cnp.PyArray_CLEARFLAGS(array, cnp.NPY_ARRAY_WRITEABLE)


def _after_fork():
    # The runtime's worker threads do not exist in a forked child: a parallel region would wait for them for ever. Another
    # library may have started them, and nothing tells.
    global _forked, _passes, _workers
    _forked = True
    _passes = _workers = 0  # those of other threads do not exist either


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

_select_from_environment()


cdef class Kernel:
    def needs_packed(self, rows):
        """Tell whether panels of these rows (n, d) must be packed; else ``panel.X`` may be NULL: they are read as they came."""
        return True

    def retry(self, double[::1] stats, double weight):
        """Return the kernel to do a whole pass again with when its statistics left out too much, or None."""
        return None

    def check_rows(self, Py_ssize_t n):
        """Raise ValueError where the kernel holds arrays of another number of rows than a block of n."""

    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil:
        return 0

    cdef int forward(self, emc_panel *panel, double *carry, double *work) noexcept nogil:
        return EMC_NOT_PROVIDED

    cdef int panel(self, emc_panel *panel, double *stats, double *loglik, double *work) noexcept nogil:
        return EMC_NOT_PROVIDED

    cdef int panel_dot(self, emc_panel *panel, double *stats_dot, double *work) noexcept nogil:
        return EMC_NOT_PROVIDED


cdef class Emission:
    def needs_packed(self, rows):
        """Tell whether panels of these rows (n, d) must be packed; else ``panel.X`` may be NULL: they are read as they came."""
        return True

    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil:
        return 0

    cdef int log_density(self, emc_panel *panel, double *logp, double *work) noexcept nogil:
        return EMC_NOT_PROVIDED

    cdef int accumulate(self, emc_panel *panel, const double *resp, double *stats, double *work) noexcept nogil:
        return EMC_NOT_PROVIDED

    cdef int log_density_dot(self, emc_panel *panel, double *logp_dot, double *work) noexcept nogil:
        return EMC_NOT_PROVIDED

    cdef int accumulate_dot(self, emc_panel *panel, const double *resp, const double *resp_dot, double *stats_dot,
                            double *work) noexcept nogil:
        return EMC_NOT_PROVIDED


cdef class Latent:
    def needs_packed(self, rows):
        """Tell whether panels of these rows (n, d) must be packed; else ``panel.X`` may be NULL: they are read as they came."""
        return True

    def check_rows(self, Py_ssize_t n):
        """Raise ValueError where the latent holds arrays of another number of rows than a block of n."""

    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil:
        return 0

    cdef int forward(self, emc_panel *panel, double *logp, double *carry, double *work) noexcept nogil:
        return EMC_NOT_PROVIDED

    cdef int posterior(self, emc_panel *panel, double *logp, double *stats, double *loglik, double *work) noexcept nogil:
        return EMC_NOT_PROVIDED

    cdef int posterior_dot(self, emc_panel *panel, const double *resp, double *logp_dot, double *stats_dot,
                           double *work) noexcept nogil:
        return EMC_NOT_PROVIDED


cdef class Coupled(Kernel):
    def __init__(self, Latent latent, Emission emission, Py_ssize_t panel_rows=512):
        if latent.k != emission.k:
            raise ValueError(f"latent has {latent.k} states, emission {emission.k}")
        self.latent, self.emission = latent, emission
        self.k, self.d = emission.k, emission.d
        self.n_stats = latent.n_stats + emission.n_stats
        self.n_aux, self.n_carry, self.n_sweeps = emission.n_aux, latent.n_carry, latent.n_sweeps
        self.shift, self.scale = emission.shift, emission.scale
        self.panel_rows = panel_rows

    def check_rows(self, Py_ssize_t n):
        self.latent.check_rows(n)

    def needs_packed(self, rows):
        return self.emission.needs_packed(rows) or self.latent.needs_packed(rows)

    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil:
        # Log-densities, and their derivatives in a pass along directions.
        return 2 * room(padded(n) * self.k) + room(self.emission.work_size(n)) + room(self.latent.work_size(n))

    cdef int panel(self, emc_panel *panel, double *stats, double *loglik, double *work) noexcept nogil:
        cdef double *at = work
        cdef double *logp = carve(&at, padded(panel.n) * self.k)
        cdef double *emission_work = carve(&at, self.emission.work_size(panel.n))
        cdef double *latent_work = carve(&at, self.latent.work_size(panel.n))
        cdef int code = self.emission.log_density(panel, logp, emission_work)
        if code != EMC_OK:
            return code
        code = self.latent.posterior(panel, logp, stats, loglik, latent_work)
        if code != EMC_OK or stats == NULL:
            return code
        return self.emission.accumulate(panel, logp, stats + self.latent.n_stats, emission_work)

    cdef int panel_dot(self, emc_panel *panel, double *stats_dot, double *work) noexcept nogil:
        cdef double *at = work
        cdef double *resp = carve(&at, padded(panel.n) * self.k)
        cdef double *dot = carve(&at, padded(panel.n) * self.k)
        cdef double *emission_work = carve(&at, self.emission.work_size(panel.n))
        cdef double *latent_work = carve(&at, self.latent.work_size(panel.n))
        cdef double[2] loglik  # known from the pass whose derivatives these are
        cdef double *latent_dot
        cdef Py_ssize_t direction
        cdef int code = self.emission.log_density(panel, resp, emission_work)
        if code != EMC_OK:
            return code
        memset(loglik, 0, sizeof(loglik))
        code = self.latent.posterior(panel, resp, NULL, loglik, latent_work)
        for direction in range(panel.n_directions):
            if code != EMC_OK:
                return code
            panel.direction = direction
            code = self.emission.log_density_dot(panel, dot, emission_work)
            if code != EMC_OK:
                return code
            latent_dot = stats_dot + direction * self.n_stats
            code = self.latent.posterior_dot(panel, resp, dot, latent_dot, latent_work)
            if code != EMC_OK:
                return code
            code = self.emission.accumulate_dot(panel, resp, dot, latent_dot + self.latent.n_stats, emission_work)
        return code


cdef struct Pass:
    const char *rows
    const char *aux
    const char *weights
    int raw_type, aux_type
    Py_ssize_t n, d, n_aux, k, panel_rows, n_panels, n_slots
    Py_ssize_t n_packed        # d, or 0 where the kernel reads rows as they came
    Py_ssize_t n_directions    # 0: the statistics, not their derivatives
    Py_ssize_t row_stride, col_stride, aux_row_stride, aux_col_stride, weight_stride
    const double *shift
    const double *scale
    const double *zeros
    const double *ones
    double *stats              # n_slots x stats_stride, or NULL
    double *sums               # n_slots x SUMS: loglik, scale, weight, bad row, code, given up
    double *scratch            # one a thread
    Py_ssize_t n_stats, stats_stride, scratch_stride, work_size
    double *resp
    double *row_loglik

cdef enum:
    SUMS = 8                   # a cache line a slot


cdef inline void bound_dropped(double *X, const double *w, Py_ssize_t n, Py_ssize_t d) noexcept nogil:
    """Make rows of weight 0 finite: 0 times infinity would spoil the sums that they must not touch."""
    cdef Py_ssize_t i, j
    cdef double *x
    for i in range(padded(n)):
        if w[i] == 0:
            for j in range(d):
                x = X + (i // EMC_GROUP * d + j) * EMC_GROUP + i % EMC_GROUP
                if not (-DBL_MAX <= x[0] <= DBL_MAX):
                    x[0] = DBL_MAX


cdef void run_slot(Kernel kernel, const Pass *job, Py_ssize_t slot, Py_ssize_t begin, Py_ssize_t step,
                   int thread) noexcept nogil:
    """Do panels begin to begin + step of a slot."""
    cdef emc_panel panel
    cdef double *at = job.scratch + thread * job.scratch_stride
    cdef double *X = carve(&at, padded(job.panel_rows) * job.n_packed)
    cdef double *w = carve(&at, padded(job.panel_rows))
    cdef double *aux = carve(&at, padded(job.panel_rows) * job.n_aux)
    cdef double *work = carve(&at, job.work_size)
    cdef double *stats = NULL if job.stats == NULL else job.stats + slot * job.stats_stride
    cdef double *sums = job.sums + slot * SUMS
    cdef const double *weights
    cdef Py_ssize_t first = slot * job.n_panels // job.n_slots, last = (slot + 1) * job.n_panels // job.n_slots
    cdef Py_ssize_t p, i, row0
    cdef int code
    if begin == 0:
        memset(sums, 0, 8 * SUMS)
        if stats != NULL:
            fence(stats, job.n_stats, job.stats_stride)
            memset(stats, 0, 8 * job.n_stats)
    if sums[5] != 0:
        return
    for p in range(first + begin, min(first + begin + step, last)):
        row0 = p * job.panel_rows
        memset(&panel, 0, sizeof(emc_panel))
        panel.size = sizeof(emc_panel)
        panel.n = min(job.panel_rows, job.n - row0)
        panel.d = job.d
        panel.row0 = row0
        panel.raw = job.rows + row0 * job.row_stride
        panel.raw_type = job.raw_type
        panel.raw_row_stride = job.row_stride
        panel.raw_col_stride = job.col_stride
        panel.bad_row = -1
        if EMC_FENCED:  # a short panel has less
            fence(X, padded(panel.n) * job.n_packed, room(padded(job.panel_rows) * job.n_packed))
            fence(w, padded(panel.n), room(padded(job.panel_rows)))
            fence(aux, padded(panel.n) * job.n_aux, room(padded(job.panel_rows) * job.n_aux))
            fence(work, kernel.work_size(panel.n), room(job.work_size))
        if job.n_packed > 0:
            table().pack_rows(X, panel.n, job.d, panel.raw, job.raw_type, job.row_stride, job.col_stride, job.shift,
                              job.scale)
            panel.X = X
        weights = NULL
        if job.weights != NULL:
            weights = <const double *> (job.weights + row0 * job.weight_stride)
        table().pack_weights(w, panel.n, weights, job.weight_stride)
        panel.w = w
        if weights != NULL:
            bound_dropped(X, w, panel.n, job.n_packed)
        if job.n_aux > 0:
            table().pack_rows(aux, panel.n, job.n_aux, job.aux + row0 * job.aux_row_stride, job.aux_type,
                              job.aux_row_stride, job.aux_col_stride, job.zeros, job.ones)
            if weights != NULL:
                bound_dropped(aux, w, panel.n, job.n_aux)
            panel.aux = aux
        if job.resp != NULL:
            panel.resp = job.resp + row0 * job.k
        if job.row_loglik != NULL:
            panel.row_loglik = job.row_loglik + row0
        if job.n_directions > 0:
            panel.n_directions = job.n_directions
            code = kernel.panel_dot(&panel, stats, work)
        else:
            code = kernel.panel(&panel, stats, sums, work)
        if weights == NULL:
            sums[2] += panel.n
        else:
            for i in range(panel.n):
                sums[2] += w[i]
        if code != EMC_OK:
            if sums[4] == EMC_OK:
                sums[3] = row0 + panel.bad_row if code == EMC_BAD_ROW else -1
                sums[4] = code
            if code != EMC_BAD_ROW or stats != NULL:  # densities alone go on: the other rows are still wanted
                sums[5] = 1
                return


class Sums(NamedTuple):
    """What a pass adds up beside the statistics.

    loglik : sum w log p
    scale : sum w |log p|
    weight : sum w
    bad_row : the first row (of the block) without a finite log-density, or -1
    """

    loglik: float
    scale: float
    weight: float
    bad_row: int


cdef int raw_type_of(cnp.ndarray rows) except -1:
    cdef int number = cnp.PyArray_TYPE(rows)
    if not cnp.PyArray_ISNOTSWAPPED(rows):
        raise TypeError(f"rows must have native byte order, got {rows.dtype.str}")
    if number == cnp.NPY_DOUBLE:
        return EMC_FLOAT64
    if number == cnp.NPY_FLOAT:
        return EMC_FLOAT32
    if cnp.PyTypeNum_ISSIGNED(number) and cnp.PyArray_ITEMSIZE(rows) == 8:
        return EMC_INT64
    if cnp.PyTypeNum_ISSIGNED(number) and cnp.PyArray_ITEMSIZE(rows) == 4:
        return EMC_INT32
    raise TypeError(f"rows must be float64, float32, int64 or int32, got {rows.dtype}")


cpdef tuple cut(Py_ssize_t n_rows, Py_ssize_t most_rows, Py_ssize_t n_stats):
    """Return how a block is cut, never a function of the threads.

    Parameters
    ----------
    n_rows : int
    most_rows : int
        What a panel may hold.
    n_stats : int

    Returns
    -------
    panel_rows, n_panels, n_slots : int
        Panels are of equal size, but for the last, and about as many to a slot: no thread waits long for another.

    Raises
    ------
    ValueError
        When `most_rows` is no positive multiple of EMC_GROUP.
    """
    if most_rows < EMC_GROUP or most_rows % EMC_GROUP != 0:
        raise ValueError(f"a kernel's panel_rows must be a positive multiple of {EMC_GROUP}, got {most_rows}")
    cdef Py_ssize_t size = 8 * max(1, n_stats)
    cdef Py_ssize_t most_slots = min(MAX_SLOTS, max(1, SLOT_BYTES // size, min(FEW_SLOTS, FEW_SLOTS_BYTES // size)))
    cdef Py_ssize_t panels = max(1, (n_rows + most_rows - 1) // most_rows)
    cdef Py_ssize_t slots, rows
    if most_slots > 1:
        most_slots = most_slots // 2 * 2  # an odd number would leave one of two threads idle at the end
    slots = 1 if panels == 1 else min(most_slots, (panels + 1) // 2 * 2)
    panels = (panels + slots - 1) // slots * slots
    rows = padded((n_rows + panels - 1) // panels)
    panels = (n_rows + rows - 1) // rows
    return rows, panels, min(slots, panels)


cdef Py_ssize_t share(int n_threads) noexcept:
    """Return how many of its threads a pass may have beside those that run: an even share of the CPUs, or what these leave."""
    cdef Py_ssize_t cpus
    if _passes <= 1:  # itself
        return n_threads
    cpus = max(omp_get_num_procs(), omp_get_max_threads())  # the latter where more were asked for
    return min(n_threads, max(1, cpus // _passes, cpus - _workers))


cdef struct Memory:
    char *at
    size_t size


# The memory of the last pass, taken and given back under the GIL: fresh pages cost more than a small pass.
cdef Memory _kept = Memory(NULL, 0)


cdef Memory take_memory(size_t size) except *:
    """Return memory of at least this size: that of the last pass when it is large enough."""
    global _kept
    cdef Memory memory = _kept
    if memory.at != NULL and memory.size >= size:
        _kept = Memory(NULL, 0)
        return memory
    memory = Memory(<char *> malloc(size), size)
    if memory.at == NULL:
        raise MemoryError(f"a pass needs {size} bytes of scratch memory")
    return memory


cdef void give_memory(Memory memory) noexcept:
    """Keep the larger one of this memory and what is kept, within bounds."""
    global _kept
    if memory.size <= KEPT_BYTES and memory.size > _kept.size and not EMC_FENCED:
        memory, _kept = _kept, memory
    free(memory.at)


def run(Kernel kernel, block, *, double[::1] stats=None, double[:, ::1] resp=None, double[::1] row_loglik=None,
        int n_threads=1):
    """Send the rows of a block through a kernel.

    Parameters
    ----------
    kernel : Kernel
    block : Block
    stats : ndarray (n_stats,), optional
        The statistics are added to it; without it only densities are computed.
    resp : ndarray (n, k), optional
        Takes the responsibilities; weights are then left out.
    row_loglik : ndarray (n,), optional
        Takes the log-density of each row.
    n_threads : int
        At most: passes at once, in several Python threads, share the CPUs. The result does not depend on it, to the last bit.

    Returns
    -------
    Sums

    Raises
    ------
    ValueError, TypeError
        When block, kernel and arrays do not fit each other.
    KeyboardInterrupt
        When a long pass is interrupted; nothing has been added to `stats` then.
    """
    return pass_of(kernel, block, stats, resp, row_loglik, n_threads, 0)


def run_dot(Kernel kernel, block, double[:, ::1] stats_dot, *, int n_threads=1):
    """Send the rows of a block through a kernel for the derivatives of its statistics along its directions.

    Parameters
    ----------
    kernel : Kernel
        Built with at least m directions.
    block : Block
    stats_dot : ndarray (m, n_stats)
        The derivatives are added to it, one row a direction: one pass for all of them.
    n_threads : int
        At most: passes at once, in several Python threads, share the CPUs. The result does not depend on it, to the last bit.

    Returns
    -------
    Sums
        Of which only `weight` and `bad_row` are known; the others are 0.

    Raises
    ------
    ValueError, TypeError
        When block, kernel and array do not fit each other, or the kernel has no such directions.
    KeyboardInterrupt
        When a long pass is interrupted; nothing has been added to `stats_dot` then.
    """
    if stats_dot.shape[0] == 0 or stats_dot.shape[1] != kernel.n_stats:
        raise ValueError(f"stats_dot must have shape (m, {kernel.n_stats}), m > 0, got {np.shape(stats_dot)}")
    return pass_of(kernel, block, np.asarray(stats_dot).reshape(-1), None, None, n_threads, stats_dot.shape[0])


cdef object pass_of(Kernel kernel, block, double[::1] stats, double[:, ::1] resp, double[::1] row_loglik, int n_threads,
                    Py_ssize_t n_directions):
    """Do what `run` and `run_dot` say: statistics, or their derivatives along some directions."""
    global _passes, _workers
    cdef cnp.ndarray rows = block.rows[0]
    cdef cnp.ndarray weights = block.weights
    cdef cnp.ndarray aux = None
    cdef Pass job
    cdef Py_ssize_t slot, begin, step, most, part, scratch, n_workers
    cdef double effort
    cdef double *total_stats
    cdef Memory memory
    cdef double *at
    cdef double[::1] zeros, ones
    memset(&job, 0, sizeof(Pass))

    check_target()
    if kernel.shift is None or kernel.shift.shape[0] != kernel.d or kernel.scale.shape[0] != kernel.d:
        raise ValueError(f"{type(kernel).__name__} has no frame: shift and scale must have shape ({kernel.d},)")
    if n_threads < 1:
        raise ValueError(f"n_threads must be at least 1, got {n_threads}")
    if rows.ndim != 2 or rows.shape[1] != kernel.d:
        raise ValueError(f"rows must have shape (n, {kernel.d}), got {(<object> rows).shape}")
    if block.bounds is not None or kernel.n_sweeps != 1:
        raise ValueError("this version runs independent rows only, no sequences")
    job.n, job.d, job.k, job.n_aux = rows.shape[0], kernel.d, kernel.k, kernel.n_aux
    job.rows = <const char *> cnp.PyArray_DATA(rows)
    job.raw_type = raw_type_of(rows)
    job.row_stride, job.col_stride = rows.strides[0], rows.strides[1]
    job.n_packed = job.d if kernel.needs_packed(rows) else 0
    if weights is not None and resp is None:
        if weights.ndim != 1 or weights.shape[0] != job.n or weights.dtype != np.float64:
            raise ValueError(f"weights must be float64 of shape ({job.n},)")
        job.weights = <const char *> cnp.PyArray_DATA(weights)
        job.weight_stride = weights.strides[0]
    if job.n_aux > 0:
        if len(block.rows) != 2 or block.rows[1].shape != (job.n, job.n_aux):
            raise ValueError(f"the block must hold a second array of shape ({job.n}, {job.n_aux})")
        aux = block.rows[1]
        job.aux = <const char *> cnp.PyArray_DATA(aux)
        job.aux_type = raw_type_of(aux)
        job.aux_row_stride, job.aux_col_stride = aux.strides[0], aux.strides[1]
        zeros, ones = np.zeros(job.n_aux), np.ones(job.n_aux)
        job.zeros, job.ones = &zeros[0], &ones[0]
    job.n_directions = n_directions
    job.n_stats = kernel.n_stats * max(1, n_directions)
    if stats is not None and stats.shape[0] != job.n_stats:
        raise ValueError(f"stats must have shape ({kernel.n_stats},), got ({stats.shape[0]},)")
    if resp is not None:
        if resp.shape[0] != job.n or resp.shape[1] != job.k:
            raise ValueError(f"resp must have shape ({job.n}, {job.k})")
    if row_loglik is not None:
        if row_loglik.shape[0] != job.n:
            raise ValueError(f"row_loglik must have shape ({job.n},)")
    kernel.check_rows(job.n)
    if job.n == 0:
        return Sums(0.0, 0.0, 0.0, -1)
    if resp is not None:
        job.resp = &resp[0, 0]
    if row_loglik is not None:
        job.row_loglik = &row_loglik[0]

    job.shift, job.scale = &kernel.shift[0], &kernel.scale[0]
    _passes += 1
    n_workers = 0
    memory = Memory(NULL, 0)
    try:
        job.panel_rows, job.n_panels, job.n_slots = cut(job.n, kernel.panel_rows, job.n_stats)
        job.stats_stride = 0 if stats is None else room(job.n_stats)
        job.work_size = kernel.work_size(job.panel_rows)
        job.scratch_stride = (room(padded(job.panel_rows) * job.n_packed) + room(padded(job.panel_rows))
                              + room(padded(job.panel_rows) * job.n_aux) + room(job.work_size) + EMC_ALIGN // 8)
        effort = <double> job.n * max(job.n_stats, job.k * (job.d + 1))
        if not EMC_THREADED or _forked or effort < SMALL_PASS:
            n_workers = 1
        else:
            n_workers = min(share(n_threads), job.n_slots)
        _workers += n_workers
        scratch = n_workers * job.scratch_stride
        memory = take_memory(8 * (room(scratch) + room(job.n_slots * SUMS) + job.n_slots * job.stats_stride) + EMC_ALIGN)
        at = <double *> ((<uintptr_t> memory.at + EMC_ALIGN - 1) // EMC_ALIGN * EMC_ALIGN)
        job.scratch = carve(&at, scratch)
        job.sums = carve(&at, job.n_slots * SUMS)
        if stats is not None:
            job.stats = at
        kernel.error = None
        most = (job.n_panels + job.n_slots - 1) // job.n_slots
        step = most if effort <= INTERRUPTIBLE else max(1, <Py_ssize_t> (most * (INTERRUPTIBLE / effort)))
        for begin in range(0, most, step):  # some panels of every slot, then a look for interrupts
            if n_workers == 1:
                with nogil:
                    for slot in range(job.n_slots):
                        run_slot(kernel, &job, slot, begin, step, 0)
            else:
                for slot in prange(job.n_slots, nogil=True, schedule="dynamic", num_threads=n_workers):
                    run_slot(kernel, &job, slot, begin, step, threadid())
            PyErr_CheckSignals()
        sums = merge(kernel, &job)
        if stats is None:
            return sums
        total_stats = &stats[0]
        if n_workers == 1 or job.n_stats * job.n_slots < SMALL_PASS:
            with nogil:
                add_slots(&job, total_stats, 0, job.n_stats)
        else:
            for part in prange(n_workers, nogil=True, schedule="static", num_threads=n_workers):
                add_slots(&job, total_stats, part * job.n_stats // n_workers, (part + 1) * job.n_stats // n_workers)
        return sums
    finally:
        _passes -= 1
        _workers -= n_workers
        give_memory(memory)


cdef object failing(Kernel kernel):
    """Return the exception that a kernel, or the emission in it, has kept."""
    if kernel.error is None and isinstance(kernel, Coupled):
        return (<Coupled> kernel).emission.error or RuntimeError("an emission failed and kept no exception")
    return kernel.error or RuntimeError("a kernel failed and kept no exception")


cdef object merge(Kernel kernel, const Pass *job):
    """Return the sums of all slots, or raise what a kernel has kept."""
    cdef Py_ssize_t slot, bad_row = -1
    cdef double loglik = 0.0, scale = 0.0, weight = 0.0
    cdef const double *sums
    for slot in range(job.n_slots):
        sums = job.sums + slot * SUMS
        if sums[4] == EMC_BAD_ROW and bad_row < 0:
            bad_row = <Py_ssize_t> sums[3]
        elif sums[4] == EMC_ERROR:
            raise failing(kernel)
        elif sums[4] == EMC_NOT_PROVIDED:
            raise ValueError(f"{type(kernel).__name__} does not provide this pass")
        loglik += sums[0]
        scale += sums[1]
        weight += sums[2]
    return Sums(loglik, scale, weight, bad_row)


cdef void add_slots(const Pass *job, double *stats, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """Add some of the statistics of all slots, slot by slot: in the same order whoever does it."""
    cdef Py_ssize_t slot, i
    cdef const double *there
    for slot in range(job.n_slots):
        there = job.stats + slot * job.stats_stride
        for i in range(begin, end):
            stats[i] += there[i]

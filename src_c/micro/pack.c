/* From rows as the user gave them to packed groups, and back. */
#include "micro.h"

#include <stdint.h>
#include <string.h>

/* Lines come to the second cache: a group may be larger than the first one. */
#define LINE 64
#if defined(__GNUC__)
#define FETCH(address) __builtin_prefetch(address, 0, 2)
#else
#define FETCH(address) ((void)(address))
#endif

/* Raw pointers may have any alignment: single values are read by memcpy. */
EMC_INLINE double load_raw(const char *p, int raw_type) {
    switch (raw_type) {
    case EMC_FLOAT32: {
        float x;
        memcpy(&x, p, sizeof x);
        return (double)x;
    }
    case EMC_INT64: {
        int64_t x;
        memcpy(&x, p, sizeof x);
        return (double)x;
    }
    case EMC_INT32: {
        int32_t x;
        memcpy(&x, p, sizeof x);
        return (double)x;
    }
    default: {
        double x;
        memcpy(&x, p, sizeof x);
        return x;
    }
    }
}

/* One group, any strides; `row` are the offsets in bytes of its rows, padding included. */
EMC_INLINE void pack_group(double *X, ptrdiff_t d, const char *raw, int raw_type, const ptrdiff_t *row,
                           ptrdiff_t col_stride, const double *shift, const double *scale) {
    for (ptrdiff_t j = 0; j < d; j++) {
        const char *column = raw + j * col_stride;
        for (int i = 0; i < EMC_GROUP; i++)
            X[j * EMC_GROUP + i] = (load_raw(column + row[i], raw_type) - shift[j]) * scale[j];
    }
}

/* m <= V_LANES neighbours in memory. */
EMC_INLINE vd load_neighbours(const char *p, int raw_type, ptrdiff_t m) {
    if (raw_type == EMC_FLOAT32)
        return m == V_LANES ? v_load_float((const float *)(const void *)p)
                            : v_load_float_part((const float *)(const void *)p, m);
    return m == V_LANES ? v_load((const double *)(const void *)p) : v_load_part((const double *)(const void *)p, m);
}

/* One square of V_LANES rows and m <= V_LANES neighbouring columns, turned in registers. */
EMC_INLINE void pack_square(double *X, ptrdiff_t m, const char *raw, int raw_type, const ptrdiff_t *row,
                            const double *shift, const double *scale) {
    vd square[V_LANES];
    for (int i = 0; i < V_LANES; i++)
        square[i] = load_neighbours(raw + row[i], raw_type, m);
    v_transpose(square);
    for (int j = 0; j < m; j++)
        v_store(X + j * EMC_GROUP, v_mul(v_sub(square[j], v_set1(shift[j])), v_set1(scale[j])));
}

EMC_INLINE ptrdiff_t item_size(int raw_type) { return raw_type == EMC_FLOAT32 || raw_type == EMC_INT32 ? 4 : 8; }

/* One group of rows whose columns are neighbours in memory.  Where its rows are neighbours too, `ahead` is where the
 * next group would begin, else NULL: its lines are asked for one after the other, as squares are not read. */
EMC_INLINE void pack_group_by_rows(double *X, ptrdiff_t d, const char *raw, int raw_type, const ptrdiff_t *row,
                                   const char *ahead, const double *shift, const double *scale) {
    const ptrdiff_t item = item_size(raw_type);
    for (int i = 0; i < EMC_GROUP; i += V_LANES) {
        ptrdiff_t j = 0;
        for (; j + V_LANES <= d; j += V_LANES) {
            for (ptrdiff_t line = 0; ahead && line < V_LANES * V_LANES * item; line += LINE)
                FETCH(ahead + (i * d + j * V_LANES) * item + line);
            pack_square(X + j * EMC_GROUP + i, V_LANES, raw + j * item, raw_type, row + i, shift + j, scale + j);
        }
        if (j < d)
            pack_square(X + j * EMC_GROUP + i, d - j, raw + j * item, raw_type, row + i, shift + j, scale + j);
    }
}

/* One whole group of whole numbers whose rows are neighbours in memory: the compiler knows how each target converts. */
EMC_INLINE void pack_whole_by_columns(double *X, ptrdiff_t d, const char *raw, int raw_type, ptrdiff_t col_stride,
                                      const double *shift, const double *scale) {
    for (ptrdiff_t j = 0; j < d; j++) {
        double column[EMC_GROUP];
        for (int i = 0; i < EMC_GROUP; i++)
            column[i] = load_raw(raw + j * col_stride + i * item_size(raw_type), raw_type);
        for (int i = 0; i < EMC_GROUP; i += V_LANES)
            v_store(X + j * EMC_GROUP + i, v_mul(v_sub(v_load(column + i), v_set1(shift[j])), v_set1(scale[j])));
    }
}

/* One whole group whose rows are neighbours in memory. */
EMC_INLINE void pack_group_by_columns(double *X, ptrdiff_t d, const char *raw, int raw_type, ptrdiff_t col_stride,
                                      const double *shift, const double *scale) {
    if (raw_type == EMC_INT64 || raw_type == EMC_INT32) {
        pack_whole_by_columns(X, d, raw, raw_type, col_stride, shift, scale);
        return;
    }
    for (ptrdiff_t j = 0; j < d; j++) {
        const vd centre = v_set1(shift[j]), factor = v_set1(scale[j]);
        for (int i = 0; i < EMC_GROUP; i += V_LANES) {
            const vd x = load_neighbours(raw + j * col_stride + i * item_size(raw_type), raw_type, V_LANES);
            v_store(X + j * EMC_GROUP + i, v_mul(v_sub(x, centre), factor));
        }
    }
}

/* So far ahead the lines of rows of two columns are asked for, in bytes: a group is too near. */
#define FAR_AHEAD 4096

/* One whole group of rows of two columns, all neighbours in memory up to `end`. */
EMC_INLINE void pack_group_of_pairs(double *X, const char *raw, int raw_type, const char *end, const double *shift,
                                    const double *scale) {
    const ptrdiff_t item = item_size(raw_type);
    const vd centre0 = v_set1(shift[0]), factor0 = v_set1(scale[0]), centre1 = v_set1(shift[1]),
             factor1 = v_set1(scale[1]);
    for (int i = 0; i < EMC_GROUP; i += V_LANES) {
        const char *pair = raw + 2 * i * item;
        vd even, odd;
        if (end - pair > FAR_AHEAD)
            for (ptrdiff_t line = 0; line < 2 * V_LANES * item; line += LINE)
                FETCH(pair + FAR_AHEAD + line);
        v_unzip(load_neighbours(pair, raw_type, V_LANES), load_neighbours(pair + V_LANES * item, raw_type, V_LANES),
                &even, &odd);
        v_store(X + i, v_mul(v_sub(even, centre0), factor0));
        v_store(X + EMC_GROUP + i, v_mul(v_sub(odd, centre1), factor1));
    }
}

enum layout { ANY_STRIDES, BY_ROWS, BY_COLUMNS };

/* What of the array can be loaded as vectors; they need each value at a multiple of its size. */
static enum layout find_layout(const void *raw, ptrdiff_t d, ptrdiff_t row_stride, ptrdiff_t col_stride,
                               ptrdiff_t item) {
    if ((uintptr_t)raw % (uintptr_t)item != 0 || row_stride % item != 0 || (d > 1 && col_stride % item != 0))
        return ANY_STRIDES;
    if (row_stride == item)
        return BY_COLUMNS;
    return d == 1 || col_stride == item ? BY_ROWS : ANY_STRIDES;
}

EMC_INLINE void pack_typed(double *X, ptrdiff_t n, ptrdiff_t d, const char *raw, int raw_type, enum layout layout,
                           ptrdiff_t row_stride, ptrdiff_t col_stride, const double *shift, const double *scale) {
    for (ptrdiff_t first = 0; first < n; first += EMC_GROUP, X += EMC_GROUP * d) {
        if (layout == BY_COLUMNS && n - first >= EMC_GROUP) {
            pack_group_by_columns(X, d, raw + first * row_stride, raw_type, col_stride, shift, scale);
            continue;
        }
        if (d == 2 && layout == BY_ROWS && row_stride == 2 * col_stride && n - first >= EMC_GROUP) {
            pack_group_of_pairs(X, raw + first * row_stride, raw_type, raw + n * row_stride, shift, scale);
            continue;
        }
        ptrdiff_t row[EMC_GROUP];
        for (int i = 0; i < EMC_GROUP; i++)
            row[i] = (first + i < n ? first + i : n - 1) * row_stride;
        const int next = row_stride == d * item_size(raw_type) && first + 2 * EMC_GROUP <= n;
        if (layout == BY_ROWS)
            pack_group_by_rows(X, d, raw, raw_type, row, next ? raw + (first + EMC_GROUP) * row_stride : NULL, shift,
                               scale);
        else
            pack_group(X, d, raw, raw_type, row, col_stride, shift, scale);
    }
}

/* What of whole numbers is read as vectors: columns only. */
static enum layout find_whole_layout(const void *raw, ptrdiff_t d, ptrdiff_t row_stride, ptrdiff_t col_stride,
                                     ptrdiff_t item) {
    return find_layout(raw, d, row_stride, col_stride, item) == BY_COLUMNS ? BY_COLUMNS : ANY_STRIDES;
}

void EMC_NAME(pack_rows)(double *X, ptrdiff_t n, ptrdiff_t d, const void *raw, int raw_type, ptrdiff_t row_stride,
                         ptrdiff_t col_stride, const double *shift, const double *scale) {
    switch (raw_type) {
    case EMC_FLOAT64: {
        const enum layout layout = find_layout(raw, d, row_stride, col_stride, item_size(EMC_FLOAT64));
        pack_typed(X, n, d, raw, EMC_FLOAT64, layout, row_stride, col_stride, shift, scale);
        break;
    }
    case EMC_FLOAT32: {
        const enum layout layout = find_layout(raw, d, row_stride, col_stride, item_size(EMC_FLOAT32));
        pack_typed(X, n, d, raw, EMC_FLOAT32, layout, row_stride, col_stride, shift, scale);
        break;
    }
    case EMC_INT64: {
        const enum layout layout = find_whole_layout(raw, d, row_stride, col_stride, item_size(EMC_INT64));
        pack_typed(X, n, d, raw, EMC_INT64, layout, row_stride, col_stride, shift, scale);
        break;
    }
    case EMC_INT32: {
        const enum layout layout = find_whole_layout(raw, d, row_stride, col_stride, item_size(EMC_INT32));
        pack_typed(X, n, d, raw, EMC_INT32, layout, row_stride, col_stride, shift, scale);
        break;
    }
    }
}

/* Packs rows chosen[0 .. n - 1] and tells whether it did: only of arrays whose columns are neighbours in memory. */
int EMC_NAME(pack_chosen)(double *X, const int *chosen, ptrdiff_t n, ptrdiff_t d, const void *raw, int raw_type,
                          ptrdiff_t row_stride, ptrdiff_t col_stride, const double *shift, const double *scale) {
    if (raw_type != EMC_FLOAT64 && raw_type != EMC_FLOAT32)
        return 0;
    if (find_layout(raw, d, row_stride, col_stride, item_size(raw_type)) != BY_ROWS)
        return 0;
    for (ptrdiff_t first = 0; first < n; first += EMC_GROUP, X += EMC_GROUP * d) {
        ptrdiff_t row[EMC_GROUP];
        for (int i = 0; i < EMC_GROUP; i++)
            row[i] = chosen[first + i < n ? first + i : n - 1] * row_stride;
        if (raw_type == EMC_FLOAT64)
            pack_group_by_rows(X, d, raw, EMC_FLOAT64, row, NULL, shift, scale);
        else
            pack_group_by_rows(X, d, raw, EMC_FLOAT32, row, NULL, shift, scale);
    }
    return 1;
}

void EMC_NAME(pack_weights)(double *w, ptrdiff_t n, const double *raw, ptrdiff_t stride) {
    const char *p = (const char *)raw;
    for (ptrdiff_t i = 0; i < n; i++)
        w[i] = p ? load_raw(p + i * stride, EMC_FLOAT64) : 1.0;
    for (ptrdiff_t i = n; i % EMC_GROUP != 0; i++)
        w[i] = 0.0;
}

void EMC_NAME(unpack)(double *out, const double *a, ptrdiff_t n, ptrdiff_t m) {
    for (ptrdiff_t i = 0; i < n; i += V_LANES) {
        const double *from = a + i / EMC_GROUP * EMC_GROUP * m + i % EMC_GROUP;
        ptrdiff_t rows = n - i < V_LANES ? n - i : V_LANES;
        for (ptrdiff_t j = 0; j < m; j += V_LANES) {
            ptrdiff_t columns = m - j < V_LANES ? m - j : V_LANES;
            vd square[V_LANES];
            for (int c = 0; c < V_LANES; c++)
                square[c] = c < columns ? v_load(from + (j + c) * EMC_GROUP) : v_zero();
            v_transpose(square);
            for (int r = 0; r < rows; r++)
                if (columns == V_LANES)
                    v_store(out + (i + r) * m + j, square[r]);
                else
                    v_store_part(out + (i + r) * m + j, square[r], columns);
        }
    }
}

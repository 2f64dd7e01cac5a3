/* The trace kernel for one type of numbers; included once for each. Set before: REAL, NAME(x).

   For samples b, outputs o, contraction index i and state slots s:

       gradient[o, i] += sum_{b, s} signal[s, b, o] old[s, b, o, i] + sum_b now[b, o] x[b, 0, i]
       new[s, b, o, i] = sum_q rows[s, q, b, o] old[q, b, o, i] + sum_k drive[s, b, k, o] x[b, k, i]

   in one pass over the traces, in place; or the gradient alone. An old trace whose factor is zero is not read: what a reset leaves behind may be
   NaN or infinite. Matrices are [P, Q]: o and i, or `across` i and o, as the weight lies in
   memory. What belongs to outputs is then a number for each row, or `across` for each column; x the other way round. One step is
   streamed. The sum over more steps is a product of matrices for each sample, done in registers, tile by tile: ROWS of P times WIDE vectors
   of Q. Where they are arguments, `across`, `moves`
   and, of streams, `S` are constants. */

typedef REAL NAME(vec) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));
#define LENGTH ((long)(VECTOR_BYTES / sizeof(REAL)))
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

/* `trace`, or zero where the factor that it meets is. */
INLINE NAME(vec) NAME(vec_met)(NAME(vec) factor, NAME(vec) trace) {
    const __typeof__(factor != factor) met = factor != 0;
    return (NAME(vec))(met & (__typeof__(met))trace);
}
INLINE REAL NAME(one_met)(REAL factor, REAL trace) { return factor != 0 ? trace : 0; }

#define DEFINE_ELEMENT(KIND, VEC)                                                                                                   \
    typedef struct { /* where an operand is missing: zero */                                                                        \
        VEC rows[SLOTS][SLOTS], signal[SLOTS], drive[SLOTS], now;                                                                   \
    } NAME(KIND##_scales);                                                                                                          \
                                                                                                                                    \
    INLINE VEC NAME(KIND##_at)(const void *values, long at, const int vector) {                                                     \
        VEC found = {0};                                                                                                            \
        if (!values) return found;                                                                                                  \
        if (vector) found = *(const VEC *)((const REAL *)values + at);                                                              \
        else found += ((const REAL *)values)[at];                                                                                   \
        return found;                                                                                                               \
    }                                                                                                                               \
                                                                                                                                    \
    /* Of output `o` of sample b, or `across` of those from o on. `one`: there is one step, with a drive. */                          \
    INLINE void NAME(KIND##_find)(const Job *job, NAME(KIND##_scales) *found, long b, long o, const int S, const int across,        \
                                  const int moves, const int one) {                                                                 \
        const long at = b * job->O + o;                                                                                             \
        UNROLL for (int s = 0; s < S; s++) {                                                                                        \
            found->signal[s] = NAME(KIND##_at)(job->signal[s], at, across);                                                         \
            if (moves) UNROLL for (int q = 0; q < S; q++) found->rows[s][q] = NAME(KIND##_at)(job->rows[s][q], at, across);         \
            if (moves && one) found->drive[s] = NAME(KIND##_at)(job->drive[s], at, across);                                         \
        }                                                                                                                           \
        if (one) found->now = NAME(KIND##_at)(job->now, at, across);                                                                \
    }                                                                                                                               \
                                                                                                                                    \
    /* Element `at` of the matrices of sample b. `x`: of the only step; `added`: what more than one add, else NULL. */                \
    INLINE void NAME(KIND##_element)(const Job *job, long b, long at, const NAME(KIND##_scales) *scales, VEC x, const VEC *added,   \
                                     const int S, const int moves) {                                                                \
        const long in_trace = b * job->O * job->I + at;                                                                             \
        VEC *gradient = (VEC *)((REAL *)job->gradient + at), old[SLOTS], sum = *gradient;                                           \
        UNROLL for (int s = 0; s < S; s++) {                                                                                        \
            old[s] = *(const VEC *)((const REAL *)job->old[s] + in_trace);                                                          \
            sum += scales->signal[s] * NAME(KIND##_met)(scales->signal[s], old[s]);                                                 \
        }                                                                                                                           \
        if (!added) sum += scales->now * x;                                                                                         \
        *gradient = sum;                                                                                                            \
        if (moves) UNROLL for (int s = 0; s < S; s++) {                                                                             \
            VEC new;                                                                                                                \
            if (added) new = added[s];                                                                                              \
            else new = scales->drive[s] * x;                                                                                        \
            UNROLL for (int q = 0; q < S; q++) new += scales->rows[s][q] * NAME(KIND##_met)(scales->rows[s][q], old[q]);            \
            *(VEC *)((REAL *)job->new[s] + in_trace) = new;                                                                         \
        }                                                                                                                           \
    }                                                                                                                               \
                                                                                                                                    \
    /* One step: rows p to p + rows of sample b, columns q0 to q1. */                                                                 \
    INLINE void NAME(KIND##_stream)(const Job *job, long b, long p, long rows, long q0, long q1, const int S, const int across,     \
                                    const int moves) {                                                                              \
        const long Q = across ? job->O : job->I, step = sizeof(VEC) / sizeof(REAL);                                                 \
        const REAL *x = job->K ? (const REAL *)job->x + b * job->I : NULL;                                                          \
        NAME(KIND##_scales) scales;                                                                                                 \
        for (long r = p; r < p + rows; r++) {                                                                                       \
            const VEC at = NAME(KIND##_at)(across ? x : NULL, r, 0);                                                                \
            if (!across) NAME(KIND##_find)(job, &scales, b, r, S, 0, moves, 1);                                                     \
            for (long q = q0; q < q1; q += step) {                                                                                  \
                if (across) NAME(KIND##_find)(job, &scales, b, q, S, 1, moves, 1);                                                  \
                NAME(KIND##_element)(job, b, r * Q + q, &scales, across ? at : NAME(KIND##_at)(x, q, 1), NULL, S, moves);           \
            }                                                                                                                       \
        }                                                                                                                           \
    }

#define DEFINE_TILE(TILE, KIND, VEC, COUNT)                                                                                         \
    /* K steps. `packed` has for each what differs between rows: the drive of each slot, or `across` x; zeros behind the last row. */\
    INLINE void NAME(TILE)(const Job *job, long b, long p, long rows, long q, const REAL *packed, const int across) {               \
        const long K = job->K, O = job->O, I = job->I, Q = across ? O : I, step = sizeof(VEC) / sizeof(REAL);                       \
        const int S = job->S;                                                                                                       \
        VEC added[ROWS][COUNT][SLOTS];                                                                                              \
        for (int s = 0; s < S; s++)                                                                                                 \
            for (long r = 0; r < rows; r++)                                                                                         \
                for (int v = 0; v < COUNT; v++)                                                                                     \
                    __builtin_prefetch((const REAL *)job->old[s] + b * O * I + (p + r) * Q + q + v * step, 1);                      \
        for (int s = 0; s < S; s++) {                                                                                               \
            VEC total[ROWS][COUNT] = {0};                                                                                           \
            const REAL *vectors = (const REAL *)(across ? job->drive[s] : job->x) + b * K * Q + q;                                  \
            const REAL *row = packed + (across ? 0 : s * K * ROWS);                                                                 \
            if (job->drive[s])                                                                                                      \
                for (long k = 0; k < K; k++) {                                                                                      \
                    VEC at[COUNT];                                                                                                  \
                    UNROLL for (int v = 0; v < COUNT; v++) at[v] = *(const VEC *)(vectors + k * Q + v * step);                      \
                    UNROLL for (int r = 0; r < ROWS; r++)                                                                           \
                        UNROLL for (int v = 0; v < COUNT; v++) total[r][v] += row[k * ROWS + r] * at[v];                            \
                }                                                                                                                   \
            UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int v = 0; v < COUNT; v++) added[r][v][s] = total[r][v];              \
        }                                                                                                                           \
        NAME(KIND##_scales) scales;                                                                                                 \
        const VEC none = {0};                                                                                                       \
        if (across)                                                                                                                 \
            for (int v = 0; v < COUNT; v++) {                                                                                       \
                NAME(KIND##_find)(job, &scales, b, q + v * step, S, 1, 1, 0);                                                       \
                for (long r = 0; r < rows; r++)                                                                                     \
                    NAME(KIND##_element)(job, b, (p + r) * Q + q + v * step, &scales, none, added[r][v], S, 1);                     \
            }                                                                                                                       \
        else                                                                                                                        \
            for (long r = 0; r < rows; r++) {                                                                                       \
                NAME(KIND##_find)(job, &scales, b, p + r, S, 0, 1, 0);                                                              \
                for (int v = 0; v < COUNT; v++)                                                                                     \
                    NAME(KIND##_element)(job, b, (p + r) * Q + q + v * step, &scales, none, added[r][v], S, 1);                     \
            }                                                                                                                       \
    }
DEFINE_ELEMENT(vec, NAME(vec))
DEFINE_ELEMENT(one, REAL)
DEFINE_TILE(wide, vec, NAME(vec), WIDE)
DEFINE_TILE(narrow, vec, NAME(vec), 1)
DEFINE_TILE(single, one, REAL, 1)

/* K steps: rows p0 to p1 of each matrix, for all samples. */
INLINE void NAME(tiles)(const Job *job, long p0, long p1, REAL *packed, const int across) {
    const long K = job->K, P = across ? job->I : job->O, Q = across ? job->O : job->I;
    for (long b = 0; b < job->B; b++)
        for (long p = p0; p < p1; p += ROWS) {
            const long rows = p1 - p < ROWS ? p1 - p : ROWS;
            for (int s = 0; s < (across ? 1 : job->S); s++) {
                const REAL *values = (const REAL *)(across ? job->x : job->drive[s]);
                for (long k = 0; values && k < K; k++)
                    for (long r = 0; r < ROWS; r++) packed[(s * K + k) * ROWS + r] = r < rows ? values[(b * K + k) * P + p + r] : 0;
            }
            long q = 0;
            for (; q + WIDE * LENGTH <= Q; q += WIDE * LENGTH) NAME(wide)(job, b, p, rows, q, packed, across);
            for (; q + LENGTH <= Q; q += LENGTH) NAME(narrow)(job, b, p, rows, q, packed, across);
            for (; q < Q; q++) NAME(single)(job, b, p, rows, q, packed, across);
        }
}

/* One step, or none: rows p0 to p1 of each matrix, for all samples. */
INLINE void NAME(streams)(const Job *job, long p0, long p1, const int S, const int across, const int moves) {
    const long Q = across ? job->O : job->I, whole = Q / LENGTH * LENGTH;
    for (long b = 0; b < job->B; b++)
        for (long p = p0; p < p1; p += ROWS) {
            const long rows = p1 - p < ROWS ? p1 - p : ROWS;
            NAME(vec_stream)(job, b, p, rows, 0, whole, S, across, moves);
            NAME(one_stream)(job, b, p, rows, whole, Q, S, across, moves);
        }
}

#define FOR_SLOTS(N, ACROSS, MOVES)                                                                   \
    if (job->S == N && job->across == ACROSS && !job->new[0] == !MOVES) NAME(streams)(job, p0, p1, N, ACROSS, MOVES);

static void NAME(chunk)(const Job *job, long p0, long p1, void *scratch) {
    if (job->new[0] && job->K > 1) {
        if (job->across) NAME(tiles)(job, p0, p1, scratch, 1);
        else NAME(tiles)(job, p0, p1, scratch, 0);
        return;
    }
    EACH(FOR_SLOTS)
}

#undef FOR_SLOTS
#undef DEFINE_TILE
#undef DEFINE_ELEMENT
#undef UNROLL
#undef INLINE
#undef LENGTH

/* The trace kernel for one type of numbers; included once for each. Set before: REAL, NAME(x).

   For lanes b, outputs o, contraction index i and state slots s:

       gradient[o, i]  = sum_{b, s} signal[s, b, o] old[s, b, o, i]
       new[s, b, o, i] = sum_q rows[s, q, b, o] old[q, b, o, i] + sum_k drive[s, b, k, o] x[b, k, i]

   in one pass over the traces, in place; or the gradient alone. The sum over k is a product of matrices for each lane, done in registers, tile by
   tile: ROWS outputs times WIDE vectors of i. */

typedef REAL NAME(vec) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));
#define LENGTH ((long)(VECTOR_BYTES / sizeof(REAL)))

/* One tile. `packed` is drive[s, b, :, o : o + ROWS] for each slot, zeros behind the last output. */
#define DEFINE_TILE(TILE, VEC, COUNT)                                                                                 \
    static void NAME(TILE)(const Job *job, long b, long o, long rows, long i, const REAL *packed) {                   \
        const long I = job->I, O = job->O, K = job->K, B = job->B, plane = B * O, step = sizeof(VEC) / sizeof(REAL);    \
        const int S = job->S;                                                                                         \
        const REAL *x = (const REAL *)job->x + b * K * I + i;                                                         \
        VEC added[SLOTS][ROWS][COUNT];                                                                                \
        for (int s = 0; s < S; s++)                                                                                   \
            for (long r = 0; r < rows; r++)                                                                           \
                for (int v = 0; v < COUNT; v++)                                                                       \
                    __builtin_prefetch((const REAL *)job->old[s] + (b * O + o + r) * I + i + v * step, 1);              \
        for (int s = 0; s < S; s++) {                                                                                 \
            VEC total[ROWS][COUNT] = {0};                                                                             \
            const REAL *d = packed + s * K * ROWS;                                                                    \
            for (long k = 0; k < K; k++) {                                                                            \
                VEC at[COUNT];                                                                                        \
                _Pragma("GCC unroll 8") for (int v = 0; v < COUNT; v++) at[v] = *(const VEC *)(x + k * I + v * step);   \
                _Pragma("GCC unroll 8") for (int r = 0; r < ROWS; r++)                                                \
                    _Pragma("GCC unroll 8") for (int v = 0; v < COUNT; v++) total[r][v] += d[k * ROWS + r] * at[v];    \
            }                                                                                                         \
            _Pragma("GCC unroll 8") for (int r = 0; r < ROWS; r++)                                                    \
                _Pragma("GCC unroll 8") for (int v = 0; v < COUNT; v++) added[s][r][v] = total[r][v];                  \
        }                                                                                                             \
        const REAL *decay = (const REAL *)job->rows + b * O + o, *signal = (const REAL *)job->signal + b * O + o;      \
        for (long r = 0; r < rows; r++) {                                                                             \
            REAL *gradient = (REAL *)job->gradient + (o + r) * I + i;                                                 \
            const long at = (b * O + o + r) * I + i;                                                                  \
            for (int v = 0; v < COUNT; v++) {                                                                         \
                VEC old[SLOTS], sum = *(VEC *)(gradient + v * step);                                                  \
                for (int s = 0; s < S; s++) {                                                                         \
                    old[s] = *(const VEC *)((const REAL *)job->old[s] + at + v * step);                               \
                    sum += signal[s * plane + r] * old[s];                                                            \
                }                                                                                                     \
                *(VEC *)(gradient + v * step) = sum;                                                                  \
                if (!job->new[0]) continue;                                                                           \
                for (int s = 0; s < S; s++) {                                                                         \
                    VEC now = added[s][r][v];                                                                         \
                    for (int q = 0; q < S; q++)                                                                       \
                        if (job->coupling[s * S + q]) now += decay[(s * S + q) * plane + r] * old[q];                 \
                    *(VEC *)((REAL *)job->new[s] + at + v * step) = now;                                              \
                }                                                                                                     \
            }                                                                                                         \
        }                                                                                                             \
    }

DEFINE_TILE(wide, NAME(vec), WIDE)
DEFINE_TILE(narrow, NAME(vec), 1)
DEFINE_TILE(single, REAL, 1)

/* Outputs o0 to o1, for all lanes. */
static void NAME(chunk)(const Job *job, long o0, long o1, void *scratch) {
    const long I = job->I, O = job->O, K = job->K, B = job->B;
    REAL *packed = scratch;
    memset((REAL *)job->gradient + o0 * I, 0, (o1 - o0) * I * sizeof(REAL));
    for (long b = 0; b < B; b++)
        for (long o = o0; o < o1; o += ROWS) {
            const long rows = o1 - o < ROWS ? o1 - o : ROWS;
            for (int s = 0; s < job->S; s++)
                for (long k = 0; k < K; k++)
                    for (long r = 0; r < ROWS; r++)
                        packed[(s * K + k) * ROWS + r] =
                            r < rows ? ((const REAL *)job->drive)[((s * B + b) * K + k) * O + o + r] : 0;
            long i = 0;
            for (; i + WIDE * LENGTH <= I; i += WIDE * LENGTH) NAME(wide)(job, b, o, rows, i, packed);
            for (; i + LENGTH <= I; i += LENGTH) NAME(narrow)(job, b, o, rows, i, packed);
            for (; i < I; i++) NAME(single)(job, b, o, rows, i, packed);
        }
}

#undef DEFINE_TILE
#undef LENGTH

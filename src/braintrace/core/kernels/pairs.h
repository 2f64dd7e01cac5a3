/* Of pairs of rows, the elements of their outer products that a sparse matrix stores, summed over time:

       found[e] = sum_t x[t, into[e]] c[t, out[e]]

   An x of zero meets nothing, so that the time goes with the events in x. That takes elements in the order of `into`, as the rows of a CSR matrix
   are; elements in another order are all gone through at each t. Indices outside of x or c add nothing.

   Operands: out s32[E], into s32[E], x[T, I], c[T, O]. Result: found[E]. */

#define FEWEST (1L << 18) /* elements for which a thread is of use */

typedef struct {
    Shared shared;
    long T, I, O, E;
    int bytes;
    const int32_t *out, *into;
    const void *x, *c;
    void *found;
    int64_t *starts; /* of the events at each t */
    int32_t *places; /* of each event, its place in x */
} PairsJob;

/* Where the events of a row of x are, and their number. */
#define DEFINE_PAIRS(REAL, NAME)                                                                                                  \
    static int64_t NAME##_count(const REAL *x, long I) {                                                                          \
        int64_t count = 0;                                                                                                        \
        for (long i = 0; i < I; i++) count += x[i] != 0;                                                                          \
        return count;                                                                                                             \
    }                                                                                                                             \
    static void NAME##_places(const REAL *x, long I, int32_t *places) {                                                           \
        for (long i = 0; i < I; i++)                                                                                              \
            if (x[i] != 0) *places++ = i;                                                                                         \
    }                                                                                                                             \
    /* Elements from `first` on, in order; row i is at rows[i] to rows[i + 1]. `where`: events in the first `count` rows. */        \
    static void NAME##_events(const int32_t *where, long events, long i0, long count, const int32_t *rows, const int32_t *out,    \
                              const REAL *x, const REAL *c, REAL *found) {                                                        \
        long at = 0;                                                                                                              \
        for (long end = events; at < end;) {                                                                                      \
            const long middle = (at + end) / 2;                                                                                   \
            if (where[middle] < i0) at = middle + 1;                                                                              \
            else end = middle;                                                                                                    \
        }                                                                                                                         \
        for (; at < events && where[at] < i0 + count; at++) {                                                                     \
            const long later = at + 4 < events ? where[at + 4] - i0 : count; /* which is fetched meanwhile */                     \
            for (long e = later < count ? rows[later] : 0, n = later < count ? rows[later + 1] : 0; e < n; e += 16)               \
                __builtin_prefetch(found + e, 1), __builtin_prefetch(out + e);                                                    \
            const REAL value = x[where[at]];                                                                                      \
            const long first = rows[where[at] - i0], length = rows[where[at] - i0 + 1] - first;                                   \
            REAL *restrict sums = found + first;                                                                                  \
            const int32_t *restrict to = out + first;                                                                             \
            for (long e = 0; e < length; e++) sums[e] += value * c[to[e]];                                                        \
        }                                                                                                                         \
    }                                                                                                                             \
    static void NAME##_each(const PairsJob *job, const int32_t *out, const int32_t *into, long count, const REAL *x,              \
                            const REAL *c, REAL *found) {                                                                         \
        for (long e = 0; e < count; e++) {                                                                                        \
            const uint32_t o = out[e], i = into[e];                                                                               \
            if (i < job->I && o < job->O && x[i] != 0) found[e] += x[i] * c[o];                                                   \
        }                                                                                                                         \
    }
DEFINE_PAIRS(float, pairs_f32)
DEFINE_PAIRS(double, pairs_f64)

#define OF(job, name, ...) ((job)->bytes == 4 ? pairs_f32_##name(__VA_ARGS__) : pairs_f64_##name(__VA_ARGS__))
#define AT(job, array, number) ((void *)((char *)(job)->array + (size_t)(number) * (job)->bytes))

/* Whether elements lie in the order of `into`, and none is outside. */
static int in_order(const PairsJob *job, const int32_t *out, const int32_t *into, long count) {
    int fits = into[0] >= 0 && into[count - 1] < job->I;
    for (long e = 0; e < count; e++) fits &= (uint32_t)out[e] < job->O;
    for (long e = 1; e < count; e++) fits &= into[e - 1] <= into[e];
    return fits;
}

static void pairs_chunk(Shared *shared, long n) {
    PairsJob *job = (PairsJob *)shared;
    const long each = (job->E + shared->chunks - 1) / shared->chunks, first = n * each;
    const long count = first + each < job->E ? each : job->E - first;
    if (count <= 0) return;
    const int32_t *out = job->out + first, *into = job->into + first;
    char *found = AT(job, found, first);
    memset(found, 0, (size_t)count * job->bytes);
    const int ordered = in_order(job, out, into, count);
    const long i0 = ordered ? into[0] : 0, span = ordered ? into[count - 1] - i0 + 1 : 0;
    int32_t *rows = ordered ? malloc((span + 1) * sizeof *rows) : NULL;
    if (ordered && !rows) {
        atomic_store(&shared->failed, 1);
        return;
    }
    if (ordered) {
        long row = 0;
        rows[0] = 0;
        for (long e = 0; e < count; e++)
            while (row < into[e] - i0) rows[++row] = e;
        rows[span] = count;
    }
    for (long t = 0; t < job->T; t++) {
        const int64_t events = job->starts[t + 1] - job->starts[t];
        const int32_t *where = job->places + job->starts[t];
        const void *x = AT(job, x, t * job->I), *c = AT(job, c, t * job->O);
        if (!events) continue;
        if (ordered) OF(job, events, where, events, i0, span, rows, out, x, c, (void *)found);
        else OF(job, each, job, out, into, count, x, c, (void *)found);
    }
    free(rows);
}

static void find_pairs(Reader *reader, PairsJob *job) {
    const XLA_FFI_Buffer *out = operand(reader, "out", XLA_FFI_DataType_S32, 1, SIZES(ANY));
    const XLA_FFI_Buffer *into = operand(reader, "into", XLA_FFI_DataType_S32, 1, SIZES(out->dims[0]));
    const XLA_FFI_Buffer *x = operand(reader, "x", F32_OR_F64, 2, SIZES(ANY, ANY));
    reader->dtype = x->dtype;
    const XLA_FFI_Buffer *c = operand(reader, "c", x->dtype, 2, SIZES(x->dims[0], ANY));
    job->E = out->dims[0], job->T = x->dims[0], job->I = x->dims[1], job->O = c->dims[1];
    job->bytes = x->dtype == XLA_FFI_DataType_F32 ? 4 : 8;
    job->out = out->data, job->into = into->data, job->x = x->data, job->c = c->data;
    job->found = result(reader, "the sums", NULL, 1, SIZES(job->E));
    nothing_else(reader);
    char got[64];
    snprintf(got, sizeof got, "%lld, %lld, %lld", (long long)job->E, (long long)job->I, (long long)job->O);
    if (job->E > INT32_MAX || job->I > INT32_MAX || job->O > INT32_MAX) refuse(reader, "sizes E, I, O", got, "32 bits");
}

static XLA_FFI_Error *run_pairs(XLA_FFI_CallFrame *frame) {
    PairsJob *job = calloc(1, sizeof *job);
    if (!job) return fail(frame, "out of memory", XLA_FFI_Error_Code_RESOURCE_EXHAUSTED);
    Reader reader = {.frame = frame};
    find_pairs(&reader, job);
    if (reader.error || !job->E) {
        free(job);
        return reader.error;
    }
    int64_t *starts = job->starts = calloc(job->T + 1, sizeof *starts);
    int32_t *places = NULL;
    if (starts) {
        for (long t = 0; t < job->T; t++) starts[t + 1] = starts[t] + OF(job, count, AT(job, x, t * job->I), job->I);
        places = job->places = malloc((starts[job->T] + 1) * sizeof *places);
    }
    if (!places) {
        free(starts), free(job);
        return fail(frame, "out of memory", XLA_FFI_Error_Code_RESOURCE_EXHAUSTED);
    }
    for (long t = 0; t < job->T; t++) OF(job, places, AT(job, x, t * job->I), job->I, places + starts[t]);
    const long threads = threads_of(frame), useful = job->E / FEWEST;
    job->shared.chunk = pairs_chunk;
    job->shared.chunks = useful < 1 ? 1 : useful < threads ? useful : threads;
    XLA_FFI_Error *error = finish(frame, &job->shared, 1);
    free(starts), free(places);
    return error;
}

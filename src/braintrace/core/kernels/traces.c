/* The trace kernel as a handler of XLA's foreign function interface, for processors. See traces.h for what it computes.

   Operands: plan s32[4 + S S + S], gradient, x[B, K, I], now[B, O] if there is one, rows[B, O] for each pair of coupled slots, drive[B, K, O] for
   each slot that has one, S signals [B, O], S traces [B, O, I] ([B, I, O] across). The plan: across, whether there is a `now`, whether the traces
   move, S, then for each pair of slots and for each slot whether its operand is there.
   Results: the gradient in place, then S traces in place if they move. */

#include <stdint.h>
#include <stdlib.h>

#include "call.h"
#include "threads.h"

#define SLOTS 4 /* the most state slots */
#define WIDE 4
#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define ROWS 6
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#define ROWS 2
#else
#define VECTOR_BYTES 16
#define ROWS 2
#endif
#define CACHE_BYTES (256L << 10) /* of the gradient's rows that a chunk adds to */
#define EACH(with) /* number of slots, across, moves */                                                                   \
    with(1, 0, 0) with(1, 0, 1) with(1, 1, 0) with(1, 1, 1) with(2, 0, 0) with(2, 0, 1) with(2, 1, 0) with(2, 1, 1)       \
    with(3, 0, 0) with(3, 0, 1) with(3, 1, 0) with(3, 1, 1) with(4, 0, 0) with(4, 0, 1) with(4, 1, 0) with(4, 1, 1)

typedef struct {
    Shared shared;
    long B, O, I, K;
    int S, across;
    const void *rows[SLOTS][SLOTS], *drive[SLOTS], *x, *now, *signal[SLOTS], *old[SLOTS];
    void *gradient, *new[SLOTS];
    int bytes; /* of a number */
    long rows_at_once; /* of the gradient, in a chunk */
} Job;

#define REAL float
#define NAME(x) x##_f32
#include "traces.h"
#undef REAL
#undef NAME
#define REAL double
#define NAME(x) x##_f64
#include "traces.h"
#undef REAL
#undef NAME

static void chunk(Shared *shared, long n) {
    Job *job = (Job *)shared;
    void *scratch = malloc((size_t)job->S * job->K * ROWS * job->bytes + 64);
    if (scratch) {
        const long P = job->across ? job->I : job->O, p0 = n * job->rows_at_once, end = p0 + job->rows_at_once;
        (job->bytes == 4 ? chunk_f32 : chunk_f64)(job, p0, end < P ? end : P, scratch);
    } else atomic_store(&shared->failed, 1);
    free(scratch);
}

/* The plan, if it is one; else NULL. */
static const int32_t *plan_of(Reader *reader) {
    const XLA_FFI_Buffer *found = operand(reader, "the plan", XLA_FFI_DataType_S32, 1, SIZES(ANY));
    const int32_t *plan = found->data;
    const int64_t length = found->dims[0];
    if (reader->error) return NULL;
    const int32_t S = length > 3 ? plan[3] : 0;
    char got[64], expected[64];
    if (S < 1 || S > SLOTS || length != 4 + S * S + S) {
        snprintf(got, sizeof got, "%lld values, S = %d", (long long)length, (int)S);
        snprintf(expected, sizeof expected, "4 + S S + S values, S of 1 to %d", SLOTS);
        refuse(reader, "plan", got, expected);
    }
    for (int64_t k = 0; !reader->error && k < length; k++)
        if (k != 3 && plan[k] != 0 && plan[k] != 1) {
            snprintf(got, sizeof got, "%d at %d", (int)plan[k], (int)k);
            refuse(reader, "plan", got, "0 or 1");
        }
    return reader->error ? NULL : plan;
}

/* Operands and results, in their order; `reader` has an error where one does not fit. */
static void find(Reader *reader, Job *job) {
    const int32_t *plan = plan_of(reader);
    if (!plan) return;
    const int across = plan[0], has_now = plan[1], moves = plan[2], S = plan[3];
    const int32_t *coupled = plan + 4, *driven = coupled + S * S;
    const XLA_FFI_Buffer *gradient = operand(reader, "the gradient", F32_OR_F64, 2, SIZES(ANY, ANY)), *old[SLOTS];
    const XLA_FFI_DataType dtype = reader->dtype = gradient->dtype;
    const int64_t P = gradient->dims[0], Q = gradient->dims[1], O = across ? Q : P, I = across ? P : Q;
    const XLA_FFI_Buffer *x = operand(reader, "x", dtype, 3, SIZES(ANY, has_now ? 1 : ANY, I));
    const int64_t B = x->dims[0], K = x->dims[1];
    job->across = across, job->S = S, job->B = B, job->O = O, job->I = I, job->K = K;
    job->bytes = dtype == XLA_FFI_DataType_F32 ? 4 : 8;
    job->x = x->data;
    if (has_now) job->now = operand(reader, "now", dtype, 2, SIZES(B, O))->data;
    for (int s = 0; s < S; s++)
        for (int q = 0; q < S; q++)
            if (coupled[s * S + q]) job->rows[s][q] = operand(reader, "a row", dtype, 2, SIZES(B, O))->data;
    for (int s = 0; s < S; s++)
        if (driven[s]) job->drive[s] = operand(reader, "a drive", dtype, 3, SIZES(B, K, O))->data;
    for (int s = 0; s < S; s++) {
        if (!K) job->drive[s] = NULL; /* of no step there is nothing to read */
        job->signal[s] = operand(reader, "a signal", dtype, 2, SIZES(B, O))->data;
    }
    for (int s = 0; s < S; s++) job->old[s] = (old[s] = operand(reader, "a trace", dtype, 3, SIZES(B, P, Q)))->data;
    job->gradient = result(reader, "the gradient", gradient, 2, SIZES(P, Q));
    for (int s = 0; moves && s < S; s++) job->new[s] = result(reader, "a trace", old[s], 3, SIZES(B, P, Q));
    nothing_else(reader);
}

static XLA_FFI_Error *run(XLA_FFI_CallFrame *frame) {
    Job *job = calloc(1, sizeof(Job));
    if (!job) return fail(frame, "out of memory", XLA_FFI_Error_Code_RESOURCE_EXHAUSTED);
    Reader reader = {.frame = frame};
    find(&reader, job);
    const long P = job->across ? job->I : job->O, Q = job->across ? job->O : job->I;
    if (reader.error || !job->B || !P || !Q) {
        free(job);
        return reader.error;
    }
    const long fit = CACHE_BYTES / (Q * job->bytes + 1) / ROWS * ROWS;
    job->rows_at_once = fit < ROWS ? ROWS : fit;
    job->shared.chunk = chunk;
    job->shared.chunks = (P + job->rows_at_once - 1) / job->rows_at_once;
    return finish(frame, &job->shared, job->B * job->O * job->I * job->S > (1L << 16));
}

#include "pairs.h"

static XLA_FFI_Error *called(XLA_FFI_CallFrame *frame, XLA_FFI_Error *(*function)(XLA_FFI_CallFrame *)) {
    /* the name of the extension's base type differs between versions of this interface */
    const XLA_FFI_Metadata_Extension *asked = (XLA_FFI_Metadata_Extension *)frame->extension_start;
    if (asked && asked->extension_base.type == XLA_FFI_Extension_Metadata) {
        asked->metadata->api_version.major_version = XLA_FFI_API_MAJOR;
        asked->metadata->api_version.minor_version = XLA_FFI_API_MINOR;
        return NULL;
    }
    return frame->stage == XLA_FFI_ExecutionStage_EXECUTE ? function(frame) : NULL;
}

XLA_FFI_Error *braintrace_traces(XLA_FFI_CallFrame *frame) { return called(frame, run); }
XLA_FFI_Error *braintrace_pairs(XLA_FFI_CallFrame *frame) { return called(frame, run_pairs); }

/* Calls of the kernels as XLA makes them, without XLA: over sizes, dtypes and slots against the definition, and with operands that do
   not fit, each of which must be refused with everything left as it was. Compiled with sanitizers; every buffer has memory of exactly its
   size. `calls short` and `calls overflow` are controls: the sanitizers must end them. */

#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int starved; /* memory is at an end */
static void *scarce_malloc(size_t size) { return starved ? NULL : malloc(size); }
static void *scarce_calloc(size_t count, size_t size) { return starved > 1 ? NULL : calloc(count, size); }
#define malloc scarce_malloc
#define calloc scarce_calloc
#include "traces.c"
#undef malloc
#undef calloc

#define REQUIRE(holds)                                                        \
    if (!(holds)) {                                                           \
        fprintf(stderr, "calls.c:%d: not so: %s\n", __LINE__, #holds);        \
        exit(1);                                                              \
    }
#define COUNT(list) (sizeof(list) / sizeof *(list))

/* What XLA offers. */

struct XLA_FFI_Error {
    XLA_FFI_Error_Code code;
    char message[600];
};
enum { AT_ONCE, LATE, IN_THREADS, REFUSED, POOLS } pool; /* when helpers run */
static struct {
    XLA_FFI_Task *run;
    void *data;
    pthread_t thread;
} tasks[8];
static int scheduled;

static XLA_FFI_Error *create(XLA_FFI_Error_Create_Args *args) {
    XLA_FFI_Error *error = calloc(1, sizeof *error);
    error->code = args->errc;
    snprintf(error->message, sizeof error->message, "%s", args->message);
    return error;
}
static void destroy(XLA_FFI_Error_Destroy_Args *args) { free(args->error); }
static XLA_FFI_Error *threads(XLA_FFI_ThreadPool_NumThreads_Args *args) {
    *args->num_threads = 4;
    return NULL;
}
static void *in_thread(void *task) {
    tasks[(size_t)task].run(tasks[(size_t)task].data);
    return NULL;
}
static XLA_FFI_Error *schedule(XLA_FFI_ThreadPool_Schedule_Args *args) {
    if (pool == REFUSED) return calloc(1, sizeof(XLA_FFI_Error));
    const size_t at = scheduled++;
    tasks[at].run = args->task, tasks[at].data = args->data;
    if (pool == AT_ONCE) args->task(args->data);
    if (pool == IN_THREADS) REQUIRE(!pthread_create(&tasks[at].thread, NULL, in_thread, (void *)at));
    return NULL;
}
static const XLA_FFI_Api api = {.XLA_FFI_Error_Create = create,
                                .XLA_FFI_Error_Destroy = destroy,
                                .XLA_FFI_ThreadPool_NumThreads = threads,
                                .XLA_FFI_ThreadPool_Schedule = schedule};

/* A call. */

enum { NONE, SOME, ALL }; /* of the rows and drives */
typedef struct {
    int bytes, S, across, now, moves, which;
    long B, O, I, K;
} Case;
#define MOST (4 + SLOTS * SLOTS + 3 * SLOTS)
typedef struct {
    Case of;
    int32_t plan[4 + SLOTS * SLOTS + SLOTS];
    XLA_FFI_Buffer in[MOST], out[1 + SLOTS];
    int64_t in_sizes[MOST][4], out_sizes[1 + SLOTS][4];
    void *ins[MOST], *outs[1 + SLOTS], *memory[MOST];
    size_t lengths[MOST]; /* of the memory */
    XLA_FFI_ArgType in_types[MOST];
    XLA_FFI_RetType out_types[1 + SLOTS];
    int now, rows[SLOTS][SLOTS], drive[SLOTS], signal, old; /* where they are; 0: there is none */
    XLA_FFI_CallFrame frame;
} Call;

static int too_short; /* numbers that a buffer's memory lacks */
static unsigned long seed = 1;
static unsigned long draw(unsigned long below) { return ((seed = seed * 6364136223846793005u + 1442695040888963407u) >> 33) % below; }

static long numbers(const XLA_FFI_Buffer *buffer) {
    long n = 1;
    for (int k = 0; k < buffer->rank; k++) n *= buffer->dims[k];
    return n;
}
static double number(const XLA_FFI_Buffer *buffer, long at) {
    return buffer->dtype == XLA_FFI_DataType_F32 ? ((float *)buffer->data)[at] : ((double *)buffer->data)[at];
}
static int add(Call *call, long a, long b, long c) {
    const int at = call->frame.args.size++, bytes = call->of.bytes;
    XLA_FFI_Buffer *buffer = &call->in[at];
    int64_t *sizes = call->in_sizes[at];
    sizes[0] = a, sizes[1] = b, sizes[2] = c;
    *buffer = (XLA_FFI_Buffer){XLA_FFI_Buffer_STRUCT_SIZE, NULL, bytes == 4 ? XLA_FFI_DataType_F32 : XLA_FFI_DataType_F64, NULL, c < 0 ? 2 : 3, sizes};
    const long n = numbers(buffer);
    call->lengths[at] = (n > too_short ? n - too_short : n) * bytes;
    call->memory[at] = buffer->data = malloc(call->lengths[at]);
    for (long k = 0; k < (long)call->lengths[at] / bytes; k++) {
        const double value = draw(2001) / 1000. - 1;
        if (bytes == 4) ((float *)buffer->data)[k] = value;
        else ((double *)buffer->data)[k] = value;
    }
    return at;
}
static void give(Call *call, int at) {
    const int to = call->frame.rets.size++;
    call->out[to] = call->in[at];
    memcpy(call->out_sizes[to], call->in_sizes[at], sizeof call->out_sizes[to]);
    call->out[to].dims = call->out_sizes[to];
}
static Call *make(Case of) {
    Call *call = calloc(1, sizeof *call);
    const int S = of.S;
    const long P = of.across ? of.I : of.O, Q = of.across ? of.O : of.I;
    call->of = of;
    int32_t header[] = {of.across, of.now, of.moves, S};
    memcpy(call->plan, header, sizeof header);
    call->in_sizes[0][0] = 4 + S * S + S;
    call->in[0] = (XLA_FFI_Buffer){XLA_FFI_Buffer_STRUCT_SIZE, NULL, XLA_FFI_DataType_S32, call->plan, 1, call->in_sizes[0]};
    call->frame.args.size = 1;
    add(call, P, Q, -1);
    add(call, of.B, of.K, of.I);
    if (of.now) call->now = add(call, of.B, of.O, -1);
    for (int s = 0; s < S; s++)
        for (int q = 0; q < S; q++)
            if (of.moves && (of.which == ALL || (of.which == SOME && q <= s)))
                call->rows[s][q] = add(call, of.B, of.O, -1), call->plan[4 + s * S + q] = 1;
    for (int s = 0; s < S; s++)
        if (of.moves && (of.which == ALL || (of.which == SOME && s != 1)))
            call->drive[s] = add(call, of.B, of.K, of.O), call->plan[4 + S * S + s] = 1;
    for (int s = 0; s < S; s++) call->signal = add(call, of.B, of.O, -1) - s;
    for (int s = 0; s < S; s++) call->old = add(call, of.B, P, Q) - s;
    give(call, 1);
    for (int s = 0; of.moves && s < S; s++) give(call, call->old + s);
    for (int k = 0; k < MOST; k++) call->ins[k] = &call->in[k], call->in_types[k] = XLA_FFI_ArgType_BUFFER;
    for (int k = 0; k < 1 + SLOTS; k++) call->outs[k] = &call->out[k], call->out_types[k] = XLA_FFI_RetType_BUFFER;
    call->frame.struct_size = XLA_FFI_CallFrame_STRUCT_SIZE;
    call->frame.api = &api, call->frame.stage = XLA_FFI_ExecutionStage_EXECUTE;
    return call;
}
static void drop(Call *call) {
    for (int k = 1; k < MOST; k++) free(call->memory[k]);
    free(call);
}
static void *exactly(const void *values, int64_t size, size_t each) { /* no memory behind the last one */
    const size_t length = size > 0 ? size * each : 0;
    void *copy = malloc(length);
    return memcpy(copy, values, length);
}
static XLA_FFI_Error *go(Call *call) {
    XLA_FFI_CallFrame *frame = &call->frame;
    scheduled = 0;
    frame->args.args = exactly(call->ins, frame->args.size, sizeof *call->ins);
    frame->args.types = exactly(call->in_types, frame->args.size, sizeof *call->in_types);
    frame->rets.rets = exactly(call->outs, frame->rets.size, sizeof *call->outs);
    frame->rets.types = exactly(call->out_types, frame->rets.size, sizeof *call->out_types);
    XLA_FFI_Error *error = braintrace_traces(frame);
    for (int k = 0; k < scheduled; k++) {
        if (pool == LATE) tasks[k].run(tasks[k].data);
        if (pool == IN_THREADS) pthread_join(tasks[k].thread, NULL);
    }
    free(frame->args.args), free(frame->args.types), free(frame->rets.rets), free(frame->rets.types);
    return error;
}

/* Against the definition. */

static double *definition(const Call *call, int slot) { /* the gradient, or the trace of a slot */
    const Case of = call->of;
    const long O = of.O, I = of.I, K = of.K;
    double *made = calloc((slot < 0 ? 1 : of.B) * O * I + 1, sizeof(double));
    for (long b = 0; b < of.B; b++)
        for (long o = 0; o < O; o++)
            for (long i = 0; i < I; i++) {
                const long at = of.across ? i * O + o : o * I + i, in_trace = b * O * I + at;
                double *sum = &made[slot < 0 ? at : in_trace];
                if (slot < 0 && !b) *sum += number(&call->in[1], at);
                if (slot < 0 && of.now) *sum += number(&call->in[call->now], b * O + o) * number(&call->in[2], b * I + i);
                for (int q = 0; q < of.S; q++) {
                    const int scale = slot < 0 ? call->signal + q : call->rows[slot][q];
                    if (scale) *sum += number(&call->in[scale], b * O + o) * number(&call->in[call->old + q], in_trace);
                }
                for (long k = 0; slot >= 0 && call->drive[slot] && k < K; k++)
                    *sum += number(&call->in[call->drive[slot]], (b * K + k) * O + o) * number(&call->in[2], (b * K + k) * I + i);
            }
    if (slot < 0 && !of.B)
        for (long k = 0; k < O * I; k++) made[k] = number(&call->in[1], k);
    return made;
}
static void check(Case of) {
    Call *call = make(of);
    double *wanted[1 + SLOTS];
    for (int k = 0; k < call->frame.rets.size; k++) wanted[k] = definition(call, k - 1);
    XLA_FFI_Error *error = go(call);
    if (error) fprintf(stderr, "%s\n", error->message);
    REQUIRE(!error);
    for (int k = 0; k < call->frame.rets.size; k++) {
        for (long n = 0; n < numbers(&call->out[k]); n++)
            REQUIRE(fabs(number(&call->out[k], n) - wanted[k][n]) < (of.bytes == 4 ? 1e-4 : 1e-11));
        free(wanted[k]);
    }
    drop(call);
}
static long sweep(void) {
    static const long sizes[][3] = {{1, 1, 1}, {3, 7, 5}, {2, 13, 33}, {1, 6, 64}, {2, 20, 9}, {0, 3, 4}, {2, 0, 5}, {2, 5, 0}, {0, 0, 0}};
    long count = 0;
    for (size_t n = 0; n < COUNT(sizes); n++)
        for (int S = 1; S <= SLOTS; S++)
            for (int bits = 0; bits < 16; bits++)
                for (int which = NONE; which <= ALL; which++)
                    for (long K = 0; K < 4; K++) {
                        const int now = bits >> 3 & 1, moves = bits >> 2 & 1;
                        if ((now && K != 1) || (!moves && which)) continue;
                        check((Case){bits & 1 ? 4 : 8, S, bits >> 1 & 1, now, moves, which, sizes[n][0], sizes[n][1], sizes[n][2], K});
                        count++;
                    }
    for (int bits = 0; bits < 8; bits++) /* more chunks than one */
        for (pool = 0; pool < POOLS; pool++, count++) {
            const int across = bits >> 1 & 1;
            check((Case){bits & 1 ? 4 : 8, 1, across, 0, 1, ALL, 1, across ? 193 : 700, across ? 700 : 193, bits & 4 ? 2 : 1});
        }
    pool = AT_ONCE;
    return count;
}

/* What does not fit. */

#define TRY(...)          \
    if (!n--) {           \
        __VA_ARGS__;      \
        return 1;         \
    }

static int spoil_buffer(XLA_FFI_Buffer *buffer, long *left) {
    static const int dtypes[] = {0, -1, 99, XLA_FFI_DataType_S32, XLA_FFI_DataType_F16, XLA_FFI_DataType_BF16, XLA_FFI_DataType_F32,
                                 XLA_FFI_DataType_F64, XLA_FFI_DataType_C64};
    static const int64_t ranks[] = {0, 1, 2, 3, 4, 5, -1, INT_MAX, INT64_MIN};
    long n = *left;
    for (size_t k = 0; k < COUNT(dtypes); k++)
        if (buffer->dtype != (XLA_FFI_DataType)dtypes[k]) TRY(buffer->dtype = dtypes[k])
    for (size_t k = 0; k < COUNT(ranks); k++)
        if (buffer->rank != ranks[k]) TRY(buffer->rank = ranks[k])
    for (int k = 0; buffer->dims && k < buffer->rank && k < 4; k++) {
        const uint64_t size = buffer->dims[k];
        TRY(buffer->dims[k] = size + 1)
        TRY(buffer->dims[k] = size - 1)
        TRY(buffer->dims[k] = 0)
        TRY(buffer->dims[k] = -1)
        TRY(buffer->dims[k] = INT64_MIN)
        TRY(buffer->dims[k] = 1L << 62)
    }
    TRY(buffer->dims = NULL)
    TRY(buffer->data = NULL)
    TRY(buffer->data = (void *)((uintptr_t)buffer->data + 1))
    *left = n;
    return 0;
}

/* Make the n-th change after which a call does not fit; 0 if there are fewer. */
static int spoil(Call *call, long n) {
    static const int values[] = {-1, 2, SLOTS + 1, INT_MAX, INT_MIN};
    XLA_FFI_Args *args = &call->frame.args;
    XLA_FFI_Rets *rets = &call->frame.rets;
    const int S = call->of.S, operands = call->old + S, results = 1 + call->of.moves * S;
    TRY(args->size--)
    if (operands < MOST) TRY(args->size++)
    TRY(args->size = 0)
    TRY(args->size = -1)
    TRY(rets->size--)
    if (results < 1 + SLOTS) TRY(rets->size++)
    TRY(rets->size = 0)
    for (int at = 0; at < 4 + S * S + S; at++) {
        TRY(call->plan[at] = at == 3 ? call->plan[at] % SLOTS + 1 : !call->plan[at])
        for (size_t k = 0; k < COUNT(values); k++)
            if (call->plan[at] != values[k]) TRY(call->plan[at] = values[k])
    }
    for (int at = 0; at < operands; at++) {
        if (spoil_buffer(&call->in[at], &n)) return 1;
        TRY(call->ins[at] = NULL)
        TRY(call->in_types[at] = 0)
    }
    for (int at = 0; at < results; at++) {
        if (spoil_buffer(&call->out[at], &n)) return 1;
        TRY(call->outs[at] = NULL)
        TRY(call->out_types[at] = 0)
        TRY(call->out[at].data = call->in[2].data) /* over another operand */
    }
    return 0;
}

static unsigned long sum_of_bytes(const Call *call) {
    unsigned long sum = 0;
    for (int k = 1; k < MOST; k++)
        for (size_t at = 0; at < call->lengths[k]; at++) sum = sum * 31 + ((unsigned char *)call->memory[k])[at];
    return sum;
}
/* Nothing is written, and the message says what was expected. */
static void refused(Call *call, XLA_FFI_Error_Code code) {
    const unsigned long before = sum_of_bytes(call);
    XLA_FFI_Error *error = go(call);
    REQUIRE(error && error->code == code && sum_of_bytes(call) == before);
    REQUIRE(code != XLA_FFI_Error_Code_INVALID_ARGUMENT || strstr(error->message, "\n  expected: "));
    free(error);
}
static const Case cases[] = {{4, 2, 0, 0, 1, ALL, 2, 5, 3, 2},  {8, 2, 1, 1, 1, ALL, 2, 5, 3, 1}, {4, 1, 1, 1, 0, NONE, 3, 4, 6, 1},
                             {8, 4, 0, 0, 1, SOME, 1, 7, 9, 3}, {4, 4, 0, 1, 1, ALL, 2, 3, 2, 1}, {8, 3, 1, 0, 1, SOME, 2, 3, 2, 4}};
static long each_spoilt(void) {
    long count = 0;
    for (size_t k = 0; k < COUNT(cases); k++)
        for (long n = 0;; n++, count++) {
            Call *call = make(cases[k]);
            const int spoilt = spoil(call, n);
            if (spoilt) refused(call, XLA_FFI_Error_Code_INVALID_ARGUMENT);
            drop(call);
            if (!spoilt) break;
        }
    return count;
}
static long spoilt_at_random(long times) { /* two changes; they may undo each other, or say the same in another way */
    long count = 0;
    for (long t = 0; t < times; t++) {
        Call *call = make(cases[draw(COUNT(cases))]);
        const long twice[] = {draw(900), draw(900)};
        count += spoil(call, twice[0]) && spoil(call, twice[1]);
        free(go(call));
        drop(call);
    }
    return count;
}
static void too_many_numbers(void) { /* for an index; of no sample, so that none is needed but of the gradient */
    Call *call = make((Case){4, 1, 0, 0, 0, NONE, 0, 1, 1, 1});
    const int64_t much = 1L << 40;
    for (int k = 0; k < 2; k++) call->in_sizes[1][k] = call->out_sizes[0][k] = call->in_sizes[call->old][1 + k] = much;
    call->in_sizes[2][2] = call->in_sizes[call->signal][1] = much;
    refused(call, XLA_FFI_Error_Code_INVALID_ARGUMENT);
    drop(call);
}
static void other_calls(void) {
    Call *call = make(cases[0]);
    starved = 1, refused(call, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED);
    starved = 2, refused(call, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED);
    starved = 0;
    call->frame.args.size = 0;
    call->frame.stage = XLA_FFI_ExecutionStage_PREPARE;
    REQUIRE(!go(call)); /* there is nothing to prepare, and no operand is read */
    XLA_FFI_Metadata about = {.struct_size = XLA_FFI_Metadata_STRUCT_SIZE};
    XLA_FFI_Metadata_Extension ask = {.metadata = &about};
    ask.extension_base.type = XLA_FFI_Extension_Metadata;
    call->frame.extension_start = (void *)&ask;
    about.api_version.minor_version = -1;
    REQUIRE(!go(call) && about.api_version.minor_version == XLA_FFI_API_MINOR);
    drop(call);
}

#include "pairs_calls.h"

int main(int count, char **arguments) {
    volatile int most = INT_MAX;
    if (count > 1 && !strcmp(arguments[1], "short")) too_short = 1, go(make(cases[0]));
    if (count > 1 && !strcmp(arguments[1], "short pairs")) too_short = 1, go_pairs(make_pairs(4, 3, 5, 7, 20, 1, 0));
    if (count > 1 && !strcmp(arguments[1], "overflow")) most += count;
    const long right = sweep() + sweep_pairs(), spoilt = each_spoilt() + spoilt_pairs(), random = spoilt_at_random(20000);
    too_many_numbers();
    other_calls();
    starved_pairs();
    printf("%ld calls agree with the definition, %ld that do not fit are refused, %ld at random do no harm\n", right, spoilt, random);
    return 0;
}

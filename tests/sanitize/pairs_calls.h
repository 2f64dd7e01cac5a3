/* Calls of the kernel of pairs, in the same way. */

enum { OUT, INTO, X, C, FOUND, BUFFERS };
typedef struct {
    XLA_FFI_Buffer buffer[BUFFERS];
    int64_t sizes[BUFFERS][2];
    long T, I, O, E;
} Pairs;

static void allot(Pairs *pairs, int which, int integer, int bytes, long a, long b) {
    XLA_FFI_Buffer *made = &pairs->buffer[which];
    pairs->sizes[which][0] = a, pairs->sizes[which][1] = b;
    const XLA_FFI_DataType real = bytes == 4 ? XLA_FFI_DataType_F32 : XLA_FFI_DataType_F64;
    const long n = a * (b < 0 ? 1 : b);
    *made = (XLA_FFI_Buffer){XLA_FFI_Buffer_STRUCT_SIZE, NULL, integer ? XLA_FFI_DataType_S32 : real, NULL, b < 0 ? 1 : 2, pairs->sizes[which]};
    made->data = malloc((n > too_short ? n - too_short : n) * (integer ? 4 : bytes));
    for (long k = 0; !integer && k < n - too_short; k++) {
        const double value = which == X && draw(3) ? 0 : draw(2001) / 1000. - 1;
        if (bytes == 4) ((float *)made->data)[k] = value;
        else ((double *)made->data)[k] = value;
    }
}
/* `outside`: whether there are indices that are none. */
static Pairs *make_pairs(int bytes, long T, long I, long O, long E, int ordered, int outside) {
    Pairs *pairs = calloc(1, sizeof *pairs);
    pairs->T = T, pairs->I = I, pairs->O = O, pairs->E = E;
    allot(pairs, OUT, 1, 4, E, -1), allot(pairs, INTO, 1, 4, E, -1);
    allot(pairs, X, 0, bytes, T, I), allot(pairs, C, 0, bytes, T, O), allot(pairs, FOUND, 0, bytes, E, -1);
    int32_t *out = pairs->buffer[OUT].data, *into = pairs->buffer[INTO].data;
    for (long e = 0; e < E - too_short; e++) {
        out[e] = outside ? (long)draw(O + 3) - 1 : (long)draw(O);
        into[e] = ordered ? e * I / E : (long)draw(I);
        if (outside && !draw(5)) into[e] = draw(2) ? INT_MAX : INT_MIN;
    }
    return pairs;
}
static XLA_FFI_Error *go_pairs(Pairs *pairs) {
    void *ins[] = {&pairs->buffer[OUT], &pairs->buffer[INTO], &pairs->buffer[X], &pairs->buffer[C]}, *outs[] = {&pairs->buffer[FOUND]};
    XLA_FFI_ArgType in_types[] = {XLA_FFI_ArgType_BUFFER, XLA_FFI_ArgType_BUFFER, XLA_FFI_ArgType_BUFFER, XLA_FFI_ArgType_BUFFER};
    XLA_FFI_RetType out_types[] = {XLA_FFI_RetType_BUFFER};
    XLA_FFI_CallFrame frame = {.struct_size = XLA_FFI_CallFrame_STRUCT_SIZE, .api = &api, .stage = XLA_FFI_ExecutionStage_EXECUTE};
    frame.args.size = 4, frame.args.args = ins, frame.args.types = in_types;
    frame.rets.size = 1, frame.rets.rets = outs, frame.rets.types = out_types;
    scheduled = 0;
    XLA_FFI_Error *error = braintrace_pairs(&frame);
    for (int k = 0; k < scheduled; k++) {
        if (pool == LATE) tasks[k].run(tasks[k].data);
        if (pool == IN_THREADS) pthread_join(tasks[k].thread, NULL);
    }
    return error;
}
static void drop_pairs(Pairs *pairs) {
    for (int k = 0; k < BUFFERS; k++) free(pairs->buffer[k].data);
    free(pairs);
}
static void check_pairs(Pairs *pairs) {
    XLA_FFI_Error *error = go_pairs(pairs);
    if (error) fprintf(stderr, "%s\n", error->message);
    REQUIRE(!error);
    const int32_t *out = pairs->buffer[OUT].data, *into = pairs->buffer[INTO].data;
    for (long e = 0; e < pairs->E; e++) {
        double sum = 0;
        for (long t = 0; t < pairs->T && out[e] >= 0 && out[e] < pairs->O && into[e] >= 0 && into[e] < pairs->I; t++)
            sum += number(&pairs->buffer[X], t * pairs->I + into[e]) * number(&pairs->buffer[C], t * pairs->O + out[e]);
        REQUIRE(fabs(number(&pairs->buffer[FOUND], e) - sum) < (pairs->buffer[C].dtype == XLA_FFI_DataType_F32 ? 1e-4 : 1e-11));
    }
    drop_pairs(pairs);
}
static long sweep_pairs(void) {
    static const long sizes[][4] = {{1, 1, 1, 1}, {3, 5, 7, 20}, {4, 40, 3, 9}, {0, 3, 4, 5}, {2, 3, 4, 0}, {5, 9, 9, 200}};
    long count = 0;
    for (size_t n = 0; n < COUNT(sizes); n++)
        for (int bits = 0; bits < 8; bits++, count++)
            check_pairs(make_pairs(bits & 1 ? 4 : 8, sizes[n][0], sizes[n][1], sizes[n][2], sizes[n][3], bits >> 1 & 1, bits >> 2));
    for (int bits = 0; bits < 4; bits++) /* more chunks than one */
        for (pool = 0; pool < POOLS; pool++, count++) check_pairs(make_pairs(4, 2, 1000, 50, 3 * FEWEST + 5, bits & 1, bits >> 1));
    pool = AT_ONCE;
    return count;
}
static long spoilt_pairs(void) {
    long count = 0;
    for (int which = 0; which < BUFFERS; which++)
        for (long change = 0;; change++, count++) {
            Pairs *pairs = make_pairs(4, 3, 5, 7, 20, 1, 0);
            void *data = pairs->buffer[which].data;
            long n = change;
            const int spoilt = spoil_buffer(&pairs->buffer[which], &n);
            /* the length of a row of x or c is said by nothing else */
            if (!(which == X && pairs->sizes[X][1] != 5) && !(which == C && pairs->sizes[C][1] != 7)) {
                XLA_FFI_Error *error = go_pairs(pairs);
                REQUIRE(!spoilt || error);
                free(error);
            }
            pairs->buffer[which].data = data;
            drop_pairs(pairs);
            if (!spoilt) break;
        }
    return count;
}
static void starved_pairs(void) {
    for (int level = 1; level < 3; level++) {
        Pairs *pairs = make_pairs(4, 3, 5, 7, 20, 1, 0);
        starved = level;
        XLA_FFI_Error *error = go_pairs(pairs);
        starved = 0;
        REQUIRE(error && error->code == XLA_FFI_Error_Code_RESOURCE_EXHAUSTED);
        free(error);
        drop_pairs(pairs);
    }
}

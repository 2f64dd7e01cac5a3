/* Work that the threads of XLA's runtime share: chunks by number, each taken once. */

#include <stdatomic.h>
#include <stdlib.h>

typedef struct Shared Shared;
struct Shared { /* the first member of a job, which is allocated */
    void (*chunk)(Shared *, long number);
    long chunks;
    atomic_long next, done;
    atomic_int users; /* the last one frees */
    atomic_int failed;
};

static void leave(Shared *shared) {
    if (atomic_fetch_sub(&shared->users, 1) == 1) free(shared);
}

/* Take chunks until none is left. */
static void work(Shared *shared) {
    for (long n; (n = atomic_fetch_add(&shared->next, 1)) < shared->chunks;) {
        shared->chunk(shared, n);
        atomic_fetch_add(&shared->done, 1);
    }
}

static void task(void *data) {
    work(data);
    leave(data);
}

static int64_t threads_of(const XLA_FFI_CallFrame *frame) {
    int64_t threads = 1;
    XLA_FFI_ThreadPool_NumThreads_Args ask = {XLA_FFI_ThreadPool_NumThreads_Args_STRUCT_SIZE, NULL, frame->ctx, &threads};
    XLA_FFI_Error *error = frame->api->XLA_FFI_ThreadPool_NumThreads(&ask);
    if (error) {
        XLA_FFI_Error_Destroy_Args drop = {XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, NULL, error};
        frame->api->XLA_FFI_Error_Destroy(&drop);
        return 1;
    }
    return threads;
}

/* Helpers on the runtime's threads; whoever comes late finds nothing left to do, so nothing depends on their coming. */
static void call_helpers(const XLA_FFI_CallFrame *frame, Shared *shared) {
    const int64_t threads = threads_of(frame);
    XLA_FFI_Error *error = NULL;
    for (int64_t k = 1; !error && k < threads && k < shared->chunks; k++) {
        atomic_fetch_add(&shared->users, 1);
        XLA_FFI_ThreadPool_Schedule_Args call = {XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE, NULL, frame->ctx, task, shared};
        if ((error = frame->api->XLA_FFI_ThreadPool_Schedule(&call))) atomic_fetch_sub(&shared->users, 1);
    }
    if (error) {
        XLA_FFI_Error_Destroy_Args drop = {XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, NULL, error};
        frame->api->XLA_FFI_Error_Destroy(&drop);
    }
}

/* All chunks, by this thread and `helped` by others; what is read for them alone may be freed afterwards. */
static XLA_FFI_Error *finish(const XLA_FFI_CallFrame *frame, Shared *shared, int helped) {
    atomic_store(&shared->users, 1);
    if (helped) call_helpers(frame, shared);
    work(shared);
    while (atomic_load(&shared->done) < shared->chunks) /* chunks that a helper is busy with */
        ;
    const int failed = atomic_load(&shared->failed);
    leave(shared);
    return failed ? fail(frame, "out of memory", XLA_FFI_Error_Code_RESOURCE_EXHAUSTED) : NULL;
}

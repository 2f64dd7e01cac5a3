/* The operands and results of a call of XLA's foreign function interface, taken one after another. Whatever does not fit is refused before
   any number is read: the message says which operand, what was got and what was expected. */

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "xla/ffi/api/c_api.h"

#define ANY (-1)                              /* a size that is not known beforehand */
#define F32_OR_F64 ((XLA_FFI_DataType)-1)     /* a dtype that is not known beforehand */
#define MOST_NUMBERS (INT64_MAX / 64)         /* of a buffer, so that no index overflows */
#define SIZES(...) ((int64_t[]){__VA_ARGS__}) /* of each axis */

typedef struct {
    const XLA_FFI_CallFrame *frame;
    XLA_FFI_DataType dtype;    /* of the numbers, once it is known */
    int64_t operands, results; /* how many were taken */
    XLA_FFI_Error *error;      /* the first one; after it nothing is taken any more */
} Reader;

static XLA_FFI_Error *fail(const XLA_FFI_CallFrame *frame, const char *message, XLA_FFI_Error_Code code) {
    XLA_FFI_Error_Create_Args made = {XLA_FFI_Error_Create_Args_STRUCT_SIZE, NULL, message, code};
    return frame->api->XLA_FFI_Error_Create(&made);
}

static void refuse(Reader *reader, const char *what, const char *got, const char *expected) {
    char message[512];
    if (reader->error) return;
    snprintf(message, sizeof message, "Invalid %s of the kernel.\n  got:      %s\n  expected: %s", what, got, expected);
    reader->error = fail(reader->frame, message, XLA_FFI_Error_Code_INVALID_ARGUMENT);
}

typedef struct {
    char text[128];
} Words;

/* As "f32[2, any, 3]". */
static Words words(XLA_FFI_DataType dtype, int64_t rank, const int64_t *sizes) {
    Words said;
    const int length = sizeof said.text;
    const char *name = dtype == XLA_FFI_DataType_F32   ? "f32"
                       : dtype == XLA_FFI_DataType_F64 ? "f64"
                       : dtype == XLA_FFI_DataType_S32 ? "s32"
                       : dtype == F32_OR_F64           ? "f32 or f64"
                                                       : NULL;
    int at = name ? snprintf(said.text, length, "%s[", name) : snprintf(said.text, length, "dtype %d of XLA[", (int)dtype);
    for (int64_t k = 0; sizes && k < rank && rank <= 4; k++) {
        at += snprintf(said.text + at, length - at, k ? ", " : "");
        at += sizes[k] == ANY ? snprintf(said.text + at, length - at, "any") : snprintf(said.text + at, length - at, "%lld", (long long)sizes[k]);
    }
    if (!sizes || rank > 4) at += snprintf(said.text + at, length - at, "%lld axes", (long long)rank);
    snprintf(said.text + at, length - at, "]");
    return said;
}

/* The buffer, if it is as expected; else one without any number. `over`: what it must lie over, or NULL. */
static const XLA_FFI_Buffer *fitting(Reader *reader, const char *what, const XLA_FFI_Buffer *buffer, const XLA_FFI_Buffer *over,
                                     XLA_FFI_DataType dtype, int64_t rank, const int64_t *sizes) {
    static int64_t zeros[3];
    static const XLA_FFI_Buffer nothing = {.dims = zeros};
    if (reader->error) return &nothing;
    const char *got = NULL;
    Words said;
    if (!buffer) got = "none";
    else {
        int fits = dtype == F32_OR_F64 ? buffer->dtype == XLA_FFI_DataType_F32 || buffer->dtype == XLA_FFI_DataType_F64 : buffer->dtype == dtype;
        fits = fits && buffer->rank == rank && (buffer->dims || !rank);
        int64_t numbers = 1;
        for (int64_t k = 0; fits && k < rank; k++) {
            const int64_t size = buffer->dims[k];
            fits = size >= 0 && (sizes[k] == ANY || size == sizes[k]) && !(size && numbers > MOST_NUMBERS / size);
            if (fits) numbers *= size;
        }
        if (!fits) said = words(buffer->dtype, buffer->rank, buffer->dims), got = said.text;
        else if (numbers && (!buffer->data || (uintptr_t)buffer->data % (buffer->dtype == XLA_FFI_DataType_F64 ? 8 : 4))) got = "no aligned memory";
        else if (numbers && over && over->data != buffer->data) got = "memory of its own, where the operand is overwritten";
    }
    if (!got) return buffer;
    refuse(reader, what, got, words(dtype, rank, sizes).text);
    return &nothing;
}

static const XLA_FFI_Buffer *operand(Reader *reader, const char *name, XLA_FFI_DataType dtype, int64_t rank, const int64_t *sizes) {
    char what[64];
    const XLA_FFI_Args *given = &reader->frame->args;
    const int64_t at = reader->operands++;
    snprintf(what, sizeof what, "operand %lld, %s,", (long long)at, name);
    const int there = at < given->size && given->types[at] == XLA_FFI_ArgType_BUFFER;
    return fitting(reader, what, there ? given->args[at] : NULL, NULL, dtype, rank, sizes);
}

static void *result(Reader *reader, const char *name, const XLA_FFI_Buffer *over, int64_t rank, const int64_t *sizes) {
    char what[64];
    const XLA_FFI_Rets *given = &reader->frame->rets;
    const int64_t at = reader->results++;
    snprintf(what, sizeof what, "result %lld, %s,", (long long)at, name);
    const int there = at < given->size && given->types[at] == XLA_FFI_RetType_BUFFER;
    return fitting(reader, what, there ? given->rets[at] : NULL, over, reader->dtype, rank, sizes)->data;
}

static void nothing_else(Reader *reader) {
    char got[64], expected[64];
    if (reader->operands == reader->frame->args.size && reader->results == reader->frame->rets.size) return;
    snprintf(got, sizeof got, "%lld, %lld", (long long)reader->frame->args.size, (long long)reader->frame->rets.size);
    snprintf(expected, sizeof expected, "%lld, %lld", (long long)reader->operands, (long long)reader->results);
    refuse(reader, "numbers of operands and results", got, expected);
}

/* A CUDA driver without a GPU, for tests: device memory is host memory, and kernels are functions
   that a test registers.

   It is stricter than a driver. Work that is queued on a stream runs only when somebody waits for it:
   a result that is read too early is the old one, a pinned buffer that is reused too early is read
   with its new bytes. Every address is looked up: outside an allocation, after its end, or on the
   wrong side of a copy, the call fails or the stream does, and stays failed. So it is where device
   memory is read that nobody wrote. Not safe for several threads at once. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600,
  ILLEGAL_ADDRESS = 700, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901,
};
enum { DEVICE, PINNED };
enum { COPY, FILL, LAUNCH, MARK, HOST };
enum { MOST_ARGUMENTS = 64, MOST_BYTES = 512, MOST_NAME = 64 };

typedef int Result;
typedef struct Block {
  char *base, *written; /* a byte for each byte of device memory: whether it was */
  size_t size;
  int kind, freed;
  struct Block *next;
} Block;
typedef struct Kernel {
  char name[MOST_NAME];
  int count, sizes[MOST_ARGUMENTS];
  struct Module *module;
  struct Kernel *next;
} Kernel;
typedef struct Module { int alive; struct Module *next; } Module;
typedef struct Event { int done; } Event;
typedef Result (*HostBody)(void *data);
typedef struct Op {
  int kind;
  char *to, *from;
  size_t size;
  int to_kind, from_kind, byte; /* -1: any memory of the host */
  Kernel *kernel;
  unsigned grid[3], block[3];
  char arguments[MOST_BYTES];
  Event *event;
  HostBody host;
  void *data;
  struct Op *next;
} Op;
typedef struct Graph { Op *first, *last; int alive; } Graph;
typedef struct Stream {
  Op *first, *last;
  Graph *capture;
  int alive, failed;
  struct Stream *next;
} Stream;
typedef Result (*Body)(const void **arguments, const unsigned *grid, const unsigned *block);
typedef struct Registered { char name[MOST_NAME]; Body body; struct Registered *next; } Registered;

static int initialized, retained;
static __thread int current; /* how often a thread has the one context on its stack */
static Block *blocks;
static Kernel *kernels;
static Module *modules;
static Stream *streams;
static Registered *registered;
static size_t limit = (size_t)1 << 40, held;
static char said[512];

static Result fail(Result code, const char *format, ...) {
  va_list rest;
  va_start(rest, format);
  vsnprintf(said, sizeof said, format, rest);
  va_end(rest);
  return code;
}

/* What a test asks of it. */
const char *fake_said(void) { return said; }
void fake_limit(size_t bytes) { limit = bytes; }
size_t fake_held(void) { return held; }
int fake_open(void) { /* contexts, modules and streams that nobody gave back */
  int open = retained;
  for (Module *m = modules; m; m = m->next) open += m->alive;
  for (Stream *s = streams; s; s = s->next) open += s->alive;
  return open;
}
void fake_kernel(const char *name, Body body) {
  Registered *entry = calloc(1, sizeof *entry);
  snprintf(entry->name, MOST_NAME, "%s", name);
  entry->body = body;
  entry->next = registered;
  registered = entry;
}

#define NEED_CONTEXT \
  do { \
    if (!initialized) return fail(NOT_INITIALIZED, "cuInit was not called"); \
    if (!current) return fail(INVALID_CONTEXT, "no context is current"); \
  } while (0)

static Block *block_of(const char *address) {
  for (Block *b = blocks; b; b = b->next)
    if (address >= b->base && address < b->base + b->size) return b;
  return NULL;
}

static Result check(const char *address, size_t size, int kind, const char *what) {
  Block *block = block_of(address);
  if (kind < 0 && !block) return SUCCESS; /* pageable memory is not known to us */
  if (!block) return fail(ILLEGAL_ADDRESS, "%s: %p is in no allocation", what, address);
  if (block->freed) return fail(ILLEGAL_ADDRESS, "%s: %p was freed", what, address);
  if (kind >= 0 && block->kind != kind)
    return fail(ILLEGAL_ADDRESS, "%s: %p is memory of the other side", what, address);
  if (kind < 0 && block->kind == DEVICE)
    return fail(ILLEGAL_ADDRESS, "%s: %p is on the device, not the host", what, address);
  if (address + size > block->base + block->size)
    return fail(ILLEGAL_ADDRESS, "%s: %zu bytes at %p end behind the allocation", what, size,
                address);
  return SUCCESS;
}

/* Whether device memory may be read, all of it having been written. */
static Result reads(const char *address, size_t size, const char *what) {
  Result result = check(address, size, DEVICE, what);
  if (result) return result;
  Block *block = block_of(address);
  for (size_t i = 0; i < size; i++)
    if (!block->written[address - block->base + i])
      return fail(ILLEGAL_ADDRESS, "%s: byte %zu of %zu at %p was never written", what, i, size,
                  address);
  return SUCCESS;
}

static void wrote(const char *address, size_t size) {
  Block *block = block_of(address);
  if (block && block->kind == DEVICE) memset(block->written + (address - block->base), 1, size);
}

/* For bodies: whether so many bytes there may be read, and whether they may be written. */
Result fake_reads(const char *address, size_t size) { return reads(address, size, "kernel"); }
Result fake_writes(const char *address, size_t size) {
  Result result = check(address, size, DEVICE, "kernel");
  if (!result) wrote(address, size);
  return result;
}

/* Where an argument of that size stands behind others of `at` bytes. */
static size_t placed(size_t at, int size) { return (at + size - 1) / size * size; }

static Result run(Op *op) {
  Result result = SUCCESS;
  if (op->kind == COPY) {
    if ((result = check(op->to, op->size, op->to_kind, "copy to"))) return result;
    if (op->from_kind == DEVICE) result = reads(op->from, op->size, "copy from");
    else result = check(op->from, op->size, op->from_kind, "copy from");
    if (result) return result;
    memmove(op->to, op->from, op->size);
    wrote(op->to, op->size);
  } else if (op->kind == FILL) {
    if ((result = check(op->to, op->size, DEVICE, "fill"))) return result;
    memset(op->to, op->byte, op->size);
    wrote(op->to, op->size);
  } else if (op->kind == MARK) {
    op->event->done = 1;
  } else if (op->kind == HOST) {
    return op->host(op->data);
  } else {
    if (!op->kernel->module->alive)
      return fail(INVALID_HANDLE, "%s: its module was unloaded", op->kernel->name);
    const void *arguments[MOST_ARGUMENTS];
    size_t at = 0;
    for (int i = 0; i < op->kernel->count; at += op->kernel->sizes[i++])
      arguments[i] = op->arguments + (at = placed(at, op->kernel->sizes[i]));
    for (Registered *entry = registered; entry; entry = entry->next)
      if (!strcmp(entry->name, op->kernel->name)) {
        return entry->body(arguments, op->grid, op->block);
      }
    return fail(NOT_FOUND, "%s: no body is registered", op->kernel->name);
  }
  return SUCCESS;
}

static Stream default_stream = {.alive = 1};
static Stream *stream_of(Stream *stream) { return stream ? stream : &default_stream; }

static Result alive(Stream *stream) {
  return stream->alive ? SUCCESS : fail(INVALID_HANDLE, "the stream was destroyed");
}

static Result drain(Stream *stream) {
  while (stream->first) {
    Op *op = stream->first;
    stream->first = op->next;
    if (!stream->failed) stream->failed = run(op);
    free(op);
  }
  stream->last = NULL;
  return stream->failed;
}

static Op *copied(const Op *op) {
  Op *copy = malloc(sizeof *copy);
  *copy = *op;
  copy->next = NULL;
  return copy;
}

static void append(Op **first, Op **last, Op *op) {
  if (*last) (*last)->next = op; else *first = op;
  *last = op;
}

static Result queue(Stream *stream, const Op *op) {
  NEED_CONTEXT;
  stream = stream_of(stream);
  Result result = alive(stream);
  if (result) return result;
  if (stream->capture) append(&stream->capture->first, &stream->capture->last, copied(op));
  else append(&stream->first, &stream->last, copied(op));
  return SUCCESS;
}

static int capturing(void) {
  for (Stream *s = streams; s; s = s->next)
    if (s->alive && s->capture) return 1;
  return 0;
}
int fake_capturing(void) { return capturing(); }

/* Devices and contexts. */
Result cuInit(unsigned flags) { (void)flags; initialized = 1; return SUCCESS; }
Result cuDriverGetVersion(int *version) { *version = 13000; return SUCCESS; }
Result cuDeviceGetCount(int *count) { *count = 1; return SUCCESS; }
Result cuDeviceGet(int *device, int ordinal) {
  if (ordinal) return fail(INVALID_VALUE, "there is one device");
  *device = 0;
  return SUCCESS;
}
Result cuDeviceGetAttribute(int *value, int attribute, int device) {
  (void)device;
  *value = attribute == 75 ? 8 : attribute == 76 ? 7 : 0; /* an Orin */
  return SUCCESS;
}
Result cuDeviceGetName(char *name, int size, int device) {
  (void)device;
  snprintf(name, size, "a device that is not there");
  return SUCCESS;
}
Result cuDeviceComputeCapability(int *major, int *minor, int device) {
  (void)device;
  *major = 8;
  *minor = 7;
  return SUCCESS;
}
Result cuDevicePrimaryCtxRetain(void **context, int device) {
  (void)device;
  if (!initialized) return fail(NOT_INITIALIZED, "cuInit was not called");
  retained++;
  *context = &retained;
  return SUCCESS;
}
Result cuDevicePrimaryCtxRelease_v2(int device) {
  (void)device;
  if (!retained) return fail(INVALID_CONTEXT, "the context was not retained");
  if (!--retained) current = 0;
  return SUCCESS;
}
Result cuCtxSetCurrent(void *context) { current = context != NULL; return SUCCESS; }
Result cuCtxPushCurrent_v2(void *context) {
  if (!context || !retained) return fail(INVALID_CONTEXT, "the context was not retained");
  current++;
  return SUCCESS;
}
Result cuCtxPopCurrent_v2(void **context) {
  if (!current) return fail(INVALID_CONTEXT, "this thread has no context to give back");
  if (context) *context = &retained;
  current--;
  return SUCCESS;
}
Result cuCtxGetDevice(int *device) { NEED_CONTEXT; *device = 0; return SUCCESS; }
Result cuCtxGetCurrent(void **context) { *context = current ? &retained : NULL; return SUCCESS; }
Result cuCtxSynchronize(void) {
  NEED_CONTEXT;
  if (capturing()) return fail(CAPTURE_UNSUPPORTED, "waiting while a stream is captured");
  Result result = drain(&default_stream);
  for (Stream *s = streams; s; s = s->next)
    if (s->alive && !result) result = drain(s);
  return result;
}

/* Memory. */
static Result allocate(char **address, size_t size, int kind) {
  NEED_CONTEXT;
  if (capturing()) return fail(CAPTURE_UNSUPPORTED, "allocating while a stream is captured");
  if (!size) return fail(INVALID_VALUE, "an allocation of no bytes");
  if (held + size > limit) return fail(OUT_OF_MEMORY, "%zu bytes are held, of %zu", held, limit);
  Block *block = calloc(1, sizeof *block);
  block->base = aligned_alloc(256, (size + 255) / 256 * 256);
  memset(block->base, 0xCD, size);
  block->written = calloc(kind == DEVICE ? size : 1, 1);
  block->size = size;
  block->kind = kind;
  block->next = blocks;
  blocks = block;
  held += size;
  *address = block->base;
  return SUCCESS;
}
static Result release(char *address, int kind) {
  Block *block = block_of(address);
  if (!block || block->base != address || block->kind != kind || block->freed)
    return fail(INVALID_VALUE, "%p is no allocation that can be freed", address);
  block->freed = 1; /* kept, so that its use is noticed */
  held -= block->size;
  return SUCCESS;
}
Result cuMemAlloc_v2(char **address, size_t size) { return allocate(address, size, DEVICE); }
Result cuMemFree_v2(char *address) { return release(address, DEVICE); }
Result cuMemHostAlloc(char **address, size_t size, unsigned flags) {
  (void)flags;
  return allocate(address, size, PINNED);
}
Result cuMemFreeHost(char *address) { return release(address, PINNED); }
Result cuMemGetInfo_v2(size_t *left, size_t *all) {
  NEED_CONTEXT;
  *left = limit - held;
  *all = limit;
  return SUCCESS;
}

static Result copy(char *to, int to_kind, char *from, int from_kind, size_t size, Stream *stream) {
  Op op = {.kind = COPY, .to = to, .from = from, .size = size};
  op.to_kind = to_kind;
  op.from_kind = from_kind;
  return queue(stream, &op);
}
Result cuMemcpyHtoDAsync_v2(char *to, char *from, size_t size, Stream *stream) {
  if (!block_of(from)) { /* pageable memory is taken over before the call returns */
    Result result = check(to, size, DEVICE, "copy to");
    if (result) return result;
    if (stream_of(stream)->capture) return fail(CAPTURE_UNSUPPORTED, "a copy from pageable memory");
    if ((result = drain(stream_of(stream)))) return result;
    memcpy(to, from, size);
    wrote(to, size);
    return SUCCESS;
  }
  return copy(to, DEVICE, from, PINNED, size, stream);
}
Result cuMemcpyDtoHAsync_v2(char *to, char *from, size_t size, Stream *stream) {
  return copy(to, -1, from, DEVICE, size, stream);
}
Result cuMemcpyDtoDAsync_v2(char *to, char *from, size_t size, Stream *stream) {
  return copy(to, DEVICE, from, DEVICE, size, stream);
}
typedef struct Side {
  size_t x, y;
  int type; /* 2: device */
  char *host, *device, *array;
  size_t pitch;
} Side;
typedef struct Rows { Side from, to; size_t width, height; } Rows;
Result cuMemcpy2DAsync_v2(const Rows *rows, Stream *stream) {
  Result result = SUCCESS;
  if (rows->from.type != 2 || rows->to.type != 2 || rows->from.x || rows->from.y || rows->to.x ||
      rows->to.y)
    return fail(INVALID_VALUE, "rows are only copied on the device, from their first byte on");
  if (rows->from.pitch < rows->width || rows->to.pitch < rows->width)
    return fail(INVALID_VALUE, "rows of %zu bytes are farther apart than their pitch", rows->width);
  for (size_t i = 0; i < rows->height && !result; i++)
    result = copy(rows->to.device + i * rows->to.pitch, DEVICE,
                  rows->from.device + i * rows->from.pitch, DEVICE, rows->width, stream);
  return result;
}
Result cuMemsetD8Async(char *to, unsigned char byte, size_t size, Stream *stream) {
  Op op = {.kind = FILL, .to = to, .size = size, .byte = byte};
  return queue(stream, &op);
}

/* Streams and events. */
Result cuStreamCreate(Stream **stream, unsigned flags) {
  (void)flags;
  NEED_CONTEXT;
  *stream = calloc(1, sizeof **stream);
  (*stream)->alive = 1;
  (*stream)->next = streams;
  streams = *stream;
  return SUCCESS;
}
Result cuStreamDestroy_v2(Stream *stream) {
  Result result = alive(stream);
  if (!result) { drain(stream); stream->alive = 0; }
  return result;
}
Result cuStreamSynchronize(Stream *stream) {
  NEED_CONTEXT;
  stream = stream_of(stream);
  Result result = alive(stream);
  if (result) return result;
  if (stream->capture) return fail(CAPTURE_UNSUPPORTED, "waiting for a stream that is captured");
  return drain(stream);
}
Result cuStreamQuery(Stream *stream) {
  return stream_of(stream)->first ? NOT_READY : stream_of(stream)->failed;
}
/* For stand-ins of libraries that run work of their own: `body(data)` at its turn on the stream. */
Result fake_queue(Stream *stream, HostBody body, void *data) {
  Op op = {.kind = HOST, .host = body, .data = data};
  return queue(stream, &op);
}
Result cuEventCreate(Event **event, unsigned flags) {
  (void)flags;
  *event = calloc(1, sizeof **event);
  return SUCCESS;
}
Result cuEventDestroy_v2(Event *event) { free(event); return SUCCESS; }
Result cuEventRecord(Event *event, Stream *stream) {
  event->done = 0;
  Op op = {.kind = MARK, .event = event};
  return queue(stream, &op);
}
Result cuEventQuery(Event *event) { return event->done ? SUCCESS : NOT_READY; }

/* Graphs. */
Result cuStreamBeginCapture_v2(Stream *stream, int mode) {
  (void)mode;
  NEED_CONTEXT;
  if (!stream) return fail(CAPTURE_UNSUPPORTED, "the default stream cannot be captured");
  if (stream->capture) return fail(INVALID_VALUE, "the stream is captured already");
  stream->capture = calloc(1, sizeof *stream->capture);
  stream->capture->alive = 1;
  return SUCCESS;
}
Result cuStreamEndCapture(Stream *stream, Graph **graph) {
  if (!stream || !stream->capture) return fail(INVALID_VALUE, "the stream is not captured");
  *graph = stream->capture;
  stream->capture = NULL;
  return SUCCESS;
}
Result cuGraphInstantiateWithFlags(Graph **executable, Graph *graph, unsigned long long flags) {
  (void)flags;
  if (!graph->alive) return fail(INVALID_HANDLE, "the graph was destroyed");
  *executable = calloc(1, sizeof **executable);
  (*executable)->alive = 1;
  for (Op *op = graph->first; op; op = op->next)
    append(&(*executable)->first, &(*executable)->last, copied(op));
  return SUCCESS;
}
Result cuGraphLaunch(Graph *executable, Stream *stream) {
  if (!executable->alive) return fail(INVALID_HANDLE, "the graph was destroyed");
  Result result = SUCCESS;
  for (Op *op = executable->first; op && !result; op = op->next) result = queue(stream, op);
  return result;
}
Result cuGraphExecDestroy(Graph *graph) { graph->alive = 0; return SUCCESS; }
Result cuGraphDestroy(Graph *graph) { graph->alive = 0; return SUCCESS; }

/* Modules: "FAKE" and then a line for each kernel, its name and the sizes of its arguments. Of a
   cubin a test tells what is in it. */
typedef const char *(*Reader)(const char *image);
static Reader reader;
void fake_reader(Reader tells) { reader = tells; }
Result cuModuleLoadData(Module **module, const char *image) {
  NEED_CONTEXT;
  if (!memcmp(image, "\177ELF", 4) && reader) image = reader(image);
  if (strncmp(image, "FAKE\n", 5)) return fail(INVALID_IMAGE, "the image is none of ours");
  *module = calloc(1, sizeof **module);
  (*module)->alive = 1;
  (*module)->next = modules;
  modules = *module;
  char *text = strdup(image + 5), *lines = NULL;
  for (char *line = strtok_r(text, "\n", &lines); line; line = strtok_r(NULL, "\n", &lines)) {
    Kernel *kernel = calloc(1, sizeof *kernel);
    char *words = NULL, *word = strtok_r(line, " ", &words);
    snprintf(kernel->name, MOST_NAME, "%s", word);
    while ((word = strtok_r(NULL, " ", &words))) kernel->sizes[kernel->count++] = atoi(word);
    kernel->module = *module;
    kernel->next = kernels;
    kernels = kernel;
  }
  free(text);
  return SUCCESS;
}
Result cuModuleLoadDataEx(Module **module, const char *image, unsigned count, int *options,
                          void **values) {
  (void)count;
  (void)options;
  (void)values;
  return cuModuleLoadData(module, image);
}
Result cuModuleUnload(Module *module) { module->alive = 0; return SUCCESS; }
Result cuModuleGetFunction(Kernel **kernel, Module *module, const char *name) {
  for (Kernel *k = kernels; k; k = k->next)
    if (k->module == module && !strcmp(k->name, name)) { *kernel = k; return SUCCESS; }
  return fail(NOT_FOUND, "the module has no kernel %s", name);
}
/* pycuda calls it before every launch, which says the same itself. */
Result cuFuncSetBlockShape(Kernel *kernel, int x, int y, int z) {
  return kernel && x > 0 && y > 0 && z > 0 ? SUCCESS : INVALID_VALUE;
}
Result cuLaunchKernel(Kernel *kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                      unsigned by, unsigned bz, unsigned shared, Stream *stream,
                      void **parameters, void **extra) {
  (void)shared;
  if (!kernel->module->alive)
    return fail(INVALID_HANDLE, "%s: its module was unloaded", kernel->name);
  if (!gx || !gy || !gz || !bx || !by || !bz || bx * by * bz > 1024)
    return fail(INVALID_VALUE, "%s: %ux%ux%u blocks of %ux%ux%u threads", kernel->name, gx, gy, gz,
                bx, by, bz);
  Op op = {.kind = LAUNCH, .kernel = kernel, .grid = {gx, gy, gz}, .block = {bx, by, bz}};
  size_t size = 0;
  for (int i = 0; i < kernel->count; size += kernel->sizes[i++]) {
    size = placed(size, kernel->sizes[i]);
    if (parameters) memcpy(op.arguments + size, parameters[i], kernel->sizes[i]);
  }
  if (extra) { /* 1: the packed arguments, 2: how many bytes they are, 0: the end */
    char *packed = NULL;
    size_t given = 0;
    for (; *extra; extra += 2) {
      if ((uintptr_t)*extra == 1) packed = extra[1];
      if ((uintptr_t)*extra == 2) given = *(size_t *)extra[1];
    }
    if (!packed || given != size)
      return fail(INVALID_VALUE, "%s takes %zu bytes of arguments, not %zu", kernel->name, size,
                  given);
    memcpy(op.arguments, packed, size);
  }
  return queue(stream, &op);
}

/* Errors, and how bindings find all of the above. */
Result cuGetErrorName(int code, const char **name) {
  static char text[32];
  snprintf(text, sizeof text, "FAKE_ERROR_%d", code);
  *name = text;
  return SUCCESS;
}
Result cuGetErrorString(int code, const char **text) { (void)code; *text = said; return SUCCESS; }
Result cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags,
                           int *found) {
  (void)version;
  (void)flags;
  static const char *const endings[] = {"_v2", ""};
  for (int i = 0; i < 2; i++) {
    char whole[128];
    snprintf(whole, sizeof whole, "%s%s", name, endings[i]);
    if ((*function = dlsym(RTLD_DEFAULT, whole))) { if (found) *found = 0; return SUCCESS; }
  }
  if (found) *found = 1;
  return NOT_FOUND;
}
Result cuGetProcAddress(const char *name, void **function, int version, uint64_t flags) {
  return cuGetProcAddress_v2(name, function, version, flags, NULL);
}

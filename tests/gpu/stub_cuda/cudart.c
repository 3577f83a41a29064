/* A CUDA runtime without a device: it keeps a record of what is asked of it, and computes nothing.

   Device memory is host memory. A kernel that is launched is written down by its name. What is copied to the host is
   zeros; a copy of at most 8 bytes, a size that the host waits for, takes the next of the numbers that were given by
   stub_answer. Functions that are not here do nothing and succeed: build.py makes them. */
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum kind { LAUNCH, TO_HOST, TO_DEVICE, ON_DEVICE, WAIT, ALLOCATE };
struct event { int kind; const char *name; size_t bytes; };
struct extent { unsigned x, y, z; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct event *events;
static size_t num_events, room;
static long answers[64];
static int num_answers, next_answer;
static int handle; /* what every handle points to */

static void record(enum kind kind, const char *name, size_t bytes) {
  pthread_mutex_lock(&lock);
  if (num_events == room) events = realloc(events, (room = 2 * room + 4096) * sizeof *events);
  events[num_events++] = (struct event){kind, name, bytes};
  pthread_mutex_unlock(&lock);
}

/* For the test. */
void stub_reset(void) { num_events = 0; next_answer = num_answers = 0; }
void stub_answer(long value) { if (num_answers < 64) answers[num_answers++] = value; }
size_t stub_events(const struct event **first) { *first = events; return num_events; }

/* For the stubs of the other libraries. */
void stub_launch(const char *name) { record(LAUNCH, name, 0); }
void *stub_handle(void) { return &handle; }

/* Kernels, by the address of the host's function that launches them. */
enum { SLOTS = 1 << 20 };
static struct { const void *function; const char *name; } kernels[SLOTS];

static size_t slot(const void *function) {
  size_t at = ((uintptr_t)function >> 3) * 11400714819323198485ull >> 44;
  while (kernels[at].function && kernels[at].function != function) at = (at + 1) % SLOTS;
  return at;
}
void __cudaRegisterFunction(void **binary, const char *function, char *name, const char *device_name) {
  size_t at = slot(function);
  kernels[at].function = function;
  kernels[at].name = device_name; /* stays in the library that registers it */
}
void **__cudaRegisterFatBinary(void *binary) { static void *registered; return &registered; }
int __cudaGetKernel(void **kernel, const void *function) { *kernel = (void *)function; return 0; }
static int launch(const void *function) { record(LAUNCH, kernels[slot(function)].name, 0); return 0; }
int __cudaLaunchKernel(const void *function) { return launch(function); }
int cudaLaunchKernel(const void *function) { return launch(function); }
int cudaLaunchCooperativeKernel(const void *function) { return launch(function); }
int cudaLaunchKernelExC(void *config, const void *function) { return launch(function); }
int cudaLaunchHostFunc(void *stream, void (*function)(void *), void *data) { function(data); return 0; }
int __cudaPopCallConfiguration(struct extent *grid, struct extent *block, size_t *shared, void **stream) {
  *grid = *block = (struct extent){1, 1, 1};
  *shared = 0;
  *stream = NULL;
  return 0;
}

/* Memory. */
int cudaMalloc(void **memory, size_t bytes) {
  if (posix_memalign(memory, 256, bytes ? bytes : 1)) return 2;
  record(ALLOCATE, NULL, bytes);
  return 0;
}
int cudaMallocFromPoolAsync(void **memory, size_t bytes) { return cudaMalloc(memory, bytes); }
int cudaMallocHost(void **memory, size_t bytes) { *memory = calloc(1, bytes ? bytes : 1); return 0; }
int cudaHostAlloc(void **memory, size_t bytes) { return cudaMallocHost(memory, bytes); }
int cudaFree(void *memory) { free(memory); return 0; }
int cudaFreeAsync(void *memory) { free(memory); return 0; }
int cudaFreeHost(void *memory) { free(memory); return 0; }
int cudaMemset(void *memory, int value, size_t bytes) { memset(memory, value, bytes); return 0; }
int cudaMemsetAsync(void *memory, int value, size_t bytes) { return cudaMemset(memory, value, bytes); }

int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind) {
  static const enum kind directions[] = {ON_DEVICE, TO_DEVICE, TO_HOST, ON_DEVICE, ON_DEVICE};
  if (directions[kind] == TO_HOST) {
    memset(to, 0, bytes);
    if (bytes <= 8 && next_answer < num_answers) memcpy(to, &answers[next_answer++], bytes);
  } else {
    memmove(to, from, bytes);
  }
  record(directions[kind], NULL, bytes);
  return 0;
}
int cudaMemcpy(void *to, const void *from, size_t bytes, int kind) {
  cudaMemcpyAsync(to, from, bytes, kind);
  record(WAIT, NULL, 0);
  return 0;
}
int cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t bytes, size_t rows) {
  record(ON_DEVICE, NULL, bytes * rows);
  return 0;
}
int cudaMemGetInfo(size_t *free_bytes, size_t *bytes) { *free_bytes = *bytes = 80ull << 30; return 0; }
int cudaPointerGetAttributes(int *attributes, const void *memory) { memset(attributes, 0, 32); return 0; }

/* Waiting. */
int cudaStreamSynchronize(void *stream) { record(WAIT, NULL, 0); return 0; }
int cudaEventSynchronize(void *event) { record(WAIT, NULL, 0); return 0; }
int cudaDeviceSynchronize(void) { record(WAIT, NULL, 0); return 0; }
int cudaEventElapsedTime(float *ms) { *ms = 1; return 0; }
int cudaStreamIsCapturing(void *stream, int *status) { *status = 0; return 0; }

/* A card like an H100. The fields are the first ones of CUDA 13's cudaDeviceProp (driver_types.h). */
struct properties {
  char name[256], uuid[16], luid[8];
  unsigned luid_mask;
  size_t global_memory, shared_per_block;
  int registers_per_block, warp_size;
  size_t pitch;
  int threads_per_block, threads_dim[3], grid_size[3];
  size_t constant_memory;
  int major, minor;
  size_t texture_alignment, texture_pitch_alignment;
  int multiprocessors;
};
int cudaGetDeviceProperties(struct properties *of_device) {
  *of_device = (struct properties){
      .name = "no card", .global_memory = 80ull << 30, .shared_per_block = 49152, .registers_per_block = 65536,
      .warp_size = 32, .pitch = 1 << 30, .threads_per_block = 1024, .threads_dim = {1024, 1024, 64},
      .grid_size = {2147483647, 65535, 65535}, .constant_memory = 65536, .major = 9, .minor = 0,
      .texture_alignment = 512, .texture_pitch_alignment = 32, .multiprocessors = 132};
  return 0;
}
int cudaDeviceGetAttribute(int *value, int attribute) { /* numbers of cudaDeviceAttr */
  static const int known[128] = {[1] = 1024, [2] = 1024, [3] = 1024, [4] = 64, [5] = 2147483647, [6] = 65535,
                                 [7] = 65535, [8] = 49152, [10] = 32, [12] = 65536, [16] = 132, [39] = 2048,
                                 [75] = 9, [81] = 233472, [82] = 65536, [97] = 232448, [106] = 32};
  *value = attribute < 128 ? known[attribute] : 0;
  return 0;
}
int cudaFuncGetAttributes(struct { size_t sizes[3]; int threads, registers, ptx, binary; } *attributes) {
  attributes->threads = 1024;
  attributes->registers = 32;
  attributes->ptx = attributes->binary = 90;
  return 0;
}
int cudaGetDevice(int *device) { *device = 0; return 0; }
int cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int cudaDriverGetVersion(int *version) { *version = 13000; return 0; }
int cudaRuntimeGetVersion(int *version) { *version = 13000; return 0; }
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks) { *blocks = 2; return 0; }

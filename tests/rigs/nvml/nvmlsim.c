/*
 * A libnvidia-ml.so.1 that answers from the shared state file of simulated GPUs.
 *
 * The file's layout is agent/powerhall_agent/simulate/layout.py; this library only reads it (and writes limits, clock
 * locks and the call counter), the physics is moved by another process. The file is named by NVMLSIM_STATE; without one
 * the driver counts as not loaded. headers.py writes getters.h; then build: cc -O2 -shared -fPIC -fvisibility=hidden
 * -I FOLDER-OF-getters.h -Wl,-soname,libnvidia-ml.so.1 -o libnvidia-ml.so.1 nvmlsim.c -lpthread
 */
#define _GNU_SOURCE
#include "nvmlsim.h"
#include "getters.h"
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define API __attribute__((visibility("default"))) int
#define MAGIC 0x31304D4953484850LL
enum { HEADER_WORDS = 256, GPU_WORDS = 1024 };
enum { H_MAGIC, H_VERSION, H_GPUS, H_GPU_WORDS, H_STEPS, H_DRIVER_RETURN, H_GENERATION, H_LATENCY_NS, H_WORLD_PID,
       H_MISSING, H_SET_RETURN, H_SIM_TIME_NS, H_STEPPED_NS, H_EVENT_HEAD, H_CALLS, H_SEED, H_DRIVER_VERSION, H_VALUES = 26 };
enum { H_EVENTS = 64, EVENT_SLOTS = 32, EVENT_WORDS = 4 };
enum { C_LIMIT_W = 2, C_LOCK_MHZ = 4, C_BMC_LIMIT_W = 3, C_LIMIT_MIN_W = 24, C_LIMIT_MAX_W = 25, C_FORCE_RETURN = 48,
       C_HANG_UNTIL_NS = 49, C_LATENCY_NS = 50, C_EVENT_TYPES = 52, C_STATIC = 40 };
enum { T_UUID = 64, T_NAME = 76, T_SERIAL = 88, T_BUS_ID = 92, T_VBIOS = 96 };
enum { G_BASE = 104, G_WORDS = 3 };
enum { F_BASE = 192, FIELD_IDS = 320 };
enum { M_COUNT = 864, M_BASE = 866, M_WORDS = 6, P_COUNT = 920, P_BASE = 922 };
enum { HANDLE_BASE = 0x10000, HANDLE_STEP = 16 };

static volatile int64_t *words;
static int64_t generation, gpus, initialised;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static double real_at(int64_t word) { double value; int64_t bits = words[word]; memcpy(&value, &bits, 8); return value; }
static void set_real(int64_t word, double value) { int64_t bits; memcpy(&bits, &value, 8); words[word] = bits; }

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void pause_ns(int64_t ns)
{
    struct timespec t = { ns / 1000000000LL, ns % 1000000000LL };
    nanosleep(&t, NULL);
}

static int map_file(void)
{
    const char *path = getenv("NVMLSIM_STATE");
    struct stat info;
    int file = path ? open(path, O_RDWR) : -1;
    if (file < 0)
        return SIM_DRIVER_NOT_LOADED;
    void *memory = fstat(file, &info) || info.st_size < 8 * HEADER_WORDS
        ? MAP_FAILED : mmap(NULL, info.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory == MAP_FAILED || ((int64_t *)memory)[H_MAGIC] != MAGIC || ((int64_t *)memory)[H_VERSION] != 1)
        return SIM_DRIVER_NOT_LOADED;
    words = memory;
    gpus = words[H_GPUS];
    return SIM_SUCCESS;
}

static int driver(void)
{
    if (!words || !generation)
        return SIM_UNINITIALIZED;
    if (words[H_DRIVER_RETURN])
        return (int)words[H_DRIVER_RETURN];
    return words[H_GENERATION] == generation ? SIM_SUCCESS : SIM_UNINITIALIZED;
}

/* Resolves a handle to the GPU's first word and MIG row (-1: the GPU), and waits or fails as the state file says. */
static int device(void *handle, int64_t *base, int *row)
{
    int64_t value = (int64_t)(intptr_t)handle - HANDLE_BASE;
    int code = driver();
    if (code)
        return code;
    if (value < 0 || value / HANDLE_STEP >= gpus)
        return SIM_INVALID;
    *base = HEADER_WORDS + GPU_WORDS * (value / HANDLE_STEP);
    *row = (int)(value % HANDLE_STEP) - 1;
    words[H_CALLS]++;
    words[H_VALUES]++;
    if (words[H_LATENCY_NS] + words[*base + C_LATENCY_NS])
        pause_ns(words[H_LATENCY_NS] + words[*base + C_LATENCY_NS]);
    while (words[*base + C_HANG_UNTIL_NS] > now_ns())
        pause_ns(5000000);
    return (int)words[*base + C_FORCE_RETURN];
}

#define ENTER(handle) int64_t base; int row; int code = device(handle, &base, &row); if (code) return code
#define GETTER(name) (base + G_BASE + G_WORDS * (name))
#define PARENT_ONLY() do { if (row >= 0) return SIM_NOT_SUPPORTED; } while (0)

static int copy_text(char *out, unsigned size, int64_t word, unsigned room)
{
    if (size == 0)
        return SIM_INSUFFICIENT_SIZE;
    snprintf(out, size, "%.*s", (int)room, (const char *)&words[word]);
    return SIM_SUCCESS;
}

API nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    pthread_mutex_lock(&lock);
    int code = words ? SIM_SUCCESS : map_file();
    if (!code)
        code = (int)words[H_DRIVER_RETURN];
    if (!code) {
        generation = words[H_GENERATION];
        initialised++;
    }
    pthread_mutex_unlock(&lock);
    return code;
}
API nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
API nvmlShutdown(void)
{
    if (!generation)
        return SIM_UNINITIALIZED;
    if (--initialised == 0)
        generation = 0;
    return SIM_SUCCESS;
}

__attribute__((visibility("default"))) const char *nvmlErrorString(int code)
{
    switch (code) {
    case 0: return "Success";
    case 1: return "Uninitialized";
    case 3: return "Not Supported";
    case 9: return "Driver Not Loaded";
    case 15: return "GPU is lost";
    default: return "Unknown Error";
    }
}

API nvmlSystemGetDriverVersion(char *out, unsigned size)
{
    int code = driver();
    return code ? code : copy_text(out, size, H_DRIVER_VERSION, 80);
}
API nvmlSystemGetNVMLVersion(char *out, unsigned size)
{
    int code = driver();
    if (!code)
        snprintf(out, size, "13.%.*s", 80, (const char *)&words[H_DRIVER_VERSION]);
    return code;
}
API nvmlDeviceGetCount_v2(unsigned *count)
{
    int code = driver();
    *count = (unsigned)gpus;
    return code;
}
API nvmlDeviceGetHandleByIndex_v2(unsigned index, void **out)
{
    int code = driver();
    if (code)
        return code;
    if (index >= gpus)
        return SIM_INVALID;
    void *handle = (void *)(intptr_t)(HANDLE_BASE + HANDLE_STEP * (int64_t)index);
    int64_t base; int row;
    code = device(handle, &base, &row);
    if (!code)
        *out = handle;
    return code;
}
static int by_text(const char *text, int word, void **out)
{
    int code = driver();
    for (int64_t gpu = 0; !code && gpu < gpus; gpu++)
        if (!strcasecmp(text, (const char *)&words[HEADER_WORDS + GPU_WORDS * gpu + word]))
            return nvmlDeviceGetHandleByIndex_v2((unsigned)gpu, out);
    return code ? code : SIM_NOT_FOUND;
}
API nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, void **out) { return by_text(bus_id, T_BUS_ID, out); }
API nvmlDeviceGetHandleByUUID(const char *uuid, void **out) { return by_text(uuid, T_UUID, out); }
API nvmlDeviceGetIndex(void *handle, unsigned *index)
{
    *index = (unsigned)(((int64_t)(intptr_t)handle - HANDLE_BASE) / HANDLE_STEP);
    return driver();
}

/* Getters of one value: the first word is the return code, the second the value. */
#define SCALAR(symbol, type, getter) \
    API symbol(void *handle, type *out) \
    { \
        ENTER(handle); \
        PARENT_ONLY(); \
        code = (int)words[GETTER(getter)]; \
        if (!code) \
            *out = (type)words[GETTER(getter) + 1]; \
        return code; \
    }
SCALAR_GETTERS

#define PAIR(symbol, getter) \
    API symbol(void *handle, unsigned *first, unsigned *second) \
    { \
        ENTER(handle); \
        PARENT_ONLY(); \
        code = (int)words[GETTER(getter)]; \
        if (!code) { \
            *first = (unsigned)words[GETTER(getter) + 1]; \
            *second = (unsigned)words[GETTER(getter) + 2]; \
        } \
        return code; \
    }
PAIR(nvmlDeviceGetPowerManagementLimitConstraints, G_LIMIT_RANGE)
PAIR(nvmlDeviceGetMigMode, G_MIG_MODE)

static int chosen(void *handle, unsigned choice, const int *names, unsigned count, unsigned *out)
{
    ENTER(handle);
    if (choice >= count || row >= 0)
        return SIM_NOT_SUPPORTED;
    code = (int)words[GETTER(names[choice])];
    if (!code)
        *out = (unsigned)words[GETTER(names[choice]) + 1];
    return code;
}
API nvmlDeviceGetTemperature(void *handle, unsigned sensor, unsigned *out)
{
    static const int names[] = { G_TEMPERATURE };
    return chosen(handle, sensor, names, 1, out);
}
API nvmlDeviceGetClockInfo(void *handle, unsigned type, unsigned *out)
{
    static const int names[] = { G_CLOCK_GRAPHICS, G_CLOCK_SM, G_CLOCK_MEM };
    return chosen(handle, type, names, 3, out);
}
API nvmlDeviceGetTemperatureThreshold(void *handle, unsigned type, unsigned *out)
{
    static const int names[] = { G_THRESHOLD_SHUTDOWN, G_THRESHOLD_SLOWDOWN, G_THRESHOLD_MEM_MAX, G_THRESHOLD_GPU_MAX };
    return chosen(handle, type, names, 4, out);
}
API nvmlDeviceGetTemperatureV(void *handle, sim_temperature *out)
{
    ENTER(handle);
    if (row >= 0 || out->sensor)
        return words[GETTER(G_TEMPERATURE)] ? (int)words[GETTER(G_TEMPERATURE)] : SIM_NOT_SUPPORTED;
    code = (int)words[GETTER(G_TEMPERATURE)];
    if (!code)
        out->temperature = (int)words[GETTER(G_TEMPERATURE) + 1];
    return code;
}
API nvmlDeviceGetMarginTemperature(void *handle, sim_margin *out)
{
    ENTER(handle);
    PARENT_ONLY();
    code = (int)words[GETTER(G_MARGIN)];
    if (!code)
        out->margin = (int)words[GETTER(G_MARGIN) + 1];
    return code;
}
API nvmlDeviceGetUtilizationRates(void *handle, sim_utilization *out)
{
    ENTER(handle);
    code = (int)words[GETTER(G_UTILIZATION)];
    if (!code && row >= 0)
        code = SIM_NOT_SUPPORTED;
    if (!code) {
        words[H_VALUES]++;
        out->gpu = (unsigned)words[GETTER(G_UTILIZATION) + 1];
        out->memory = (unsigned)words[GETTER(G_UTILIZATION) + 2];
    }
    return code;
}

static int memory_of(void *handle, uint64_t *total, uint64_t *used, uint64_t *reserved)
{
    ENTER(handle);
    code = (int)words[GETTER(G_MEMORY)];
    if (code)
        return code;
    words[H_VALUES] += 2;
    *total = (uint64_t)words[GETTER(G_MEMORY) + 1];
    *used = (uint64_t)words[GETTER(G_MEMORY) + 2];
    *reserved = (uint64_t)words[GETTER(G_MEMORY_RESERVED) + 1];
    if (row >= 0) {
        *total = (uint64_t)words[base + M_BASE + M_WORDS * row + 1];
        *used = (uint64_t)words[base + M_BASE + M_WORDS * row + 2];
        *reserved = 0;
    }
    return SIM_SUCCESS;
}
API nvmlDeviceGetMemoryInfo(void *handle, sim_memory *out)
{
    uint64_t reserved, used;
    int code = memory_of(handle, &out->total, &used, &reserved);
    if (!code) {
        out->used = used + reserved;
        out->free = out->total - used - reserved;
    }
    return code;
}
API nvmlDeviceGetMemoryInfo_v2(void *handle, sim_memory_v2 *out)
{
    int code = memory_of(handle, &out->total, &out->used, &out->reserved);
    if (!code)
        out->free = out->total - out->used - out->reserved;
    return code;
}

API nvmlDeviceGetUUID(void *handle, char *out, unsigned size)
{
    ENTER(handle);
    if (row < 0)
        return copy_text(out, size, base + T_UUID, 96);
    snprintf(out, size, "MIG-%s-%lld", (const char *)&words[base + T_UUID] + 4,
             (long long)words[base + M_BASE + M_WORDS * row]);
    return SIM_SUCCESS;
}
API nvmlDeviceGetName(void *handle, char *out, unsigned size)
{
    ENTER(handle);
    return copy_text(out, size, base + T_NAME, 96);
}
API nvmlDeviceGetSerial(void *handle, char *out, unsigned size)
{
    ENTER(handle);
    return words[GETTER(G_SERIAL)] ? (int)words[GETTER(G_SERIAL)] : copy_text(out, size, base + T_SERIAL, 32);
}
API nvmlDeviceGetVbiosVersion(void *handle, char *out, unsigned size)
{
    ENTER(handle);
    return words[GETTER(G_VBIOS)] ? (int)words[GETTER(G_VBIOS)] : copy_text(out, size, base + T_VBIOS, 32);
}
API nvmlDeviceGetPciInfo_v3(void *handle, sim_pci *out)
{
    ENTER(handle);
    const char *text = (const char *)&words[base + T_BUS_ID];
    snprintf(out->bus_id, sizeof out->bus_id, "%s", text);
    snprintf(out->bus_id_legacy, sizeof out->bus_id_legacy, "%s", text + 4);
    sscanf(text, "%x:%x:%x", &out->domain, &out->bus, &out->device);
    return SIM_SUCCESS;
}

static int field_slot(uint32_t field, uint32_t scope)
{
    if (field >= FIELD_IDS)
        return -1;
    if (scope == 0 || scope == 0xFFFFFFFFu)
        return (int)field;
    if ((scope == 1 || scope == 2) && field >= 185 && field < 193)
        return FIELD_IDS + 8 * (int)(scope - 1) + (int)field - 185;
    return -1;
}
API nvmlDeviceGetFieldValues(void *handle, int count, sim_field_value *values)
{
    ENTER(handle);
    int first = 0, filled = 0;
    words[H_VALUES] += count - 1;
    for (int i = 0; i < count; i++) {
        sim_field_value *v = &values[i];
        int slot = field_slot(v->field_id, v->scope_id);
        uint64_t head = slot < 0 ? SIM_INVALID : row >= 0 ? SIM_NOT_SUPPORTED : (uint64_t)words[base + F_BASE + 2 * slot];
        v->code = (uint32_t)head;
        v->value_type = (uint32_t)(head >> 32);
        v->value = v->code ? 0 : (uint64_t)words[base + F_BASE + 2 * slot + 1];
        v->timestamp_us = words[H_SIM_TIME_NS] / 1000;
        v->latency_us = 1;
        filled |= !v->code;
        if (!first)
            first = (int)v->code;
    }
    return filled || !count ? SIM_SUCCESS : first;
}
API nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, sim_process *out)
{
    ENTER(handle);
    unsigned room = *count, present = row >= 0 ? 0 : (unsigned)words[base + P_COUNT];
    if (row < 0 && words[GETTER(G_PROCESSES)])
        return (int)words[GETTER(G_PROCESSES)];
    *count = present;
    if (!present)
        return SIM_SUCCESS;
    if (!out || room < present)
        return SIM_INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < present; i++) {
        out[i].pid = (uint32_t)words[base + P_BASE + 2 * i];
        out[i].used = (uint64_t)words[base + P_BASE + 2 * i + 1];
        out[i].gpu_instance = out[i].compute_instance = 0xFFFFFFFFu;
    }
    return SIM_SUCCESS;
}
API nvmlDeviceGetGpuFabricInfoV(void *handle, sim_fabric *out)
{
    ENTER(handle);
    code = (int)words[GETTER(G_FABRIC)];
    if (!code) {
        out->state = (uint32_t)words[GETTER(G_FABRIC) + 1];
        out->status = (uint32_t)words[GETTER(G_FABRIC) + 2];
        out->health_mask = out->clique = 0;
    }
    return code;
}

API nvmlDeviceWorkloadPowerProfileGetCurrentProfiles(void *handle, sim_power_profiles *out)
{
    ENTER(handle);
    PARENT_ONLY();
    code = (int)words[GETTER(G_POWER_PROFILES)];
    if (!code)
        out->enforced[0] = (uint32_t)words[GETTER(G_POWER_PROFILES) + 1];
    return code;
}

/* Setters. The published limit follows at the world's next step, and at once in the getter of the requested limit. */
API nvmlDeviceSetPowerManagementLimit(void *handle, unsigned limit_mw)
{
    ENTER(handle);
    if (words[H_SET_RETURN])
        return (int)words[H_SET_RETURN];
    if (words[GETTER(G_REQUESTED_LIMIT)])
        return (int)words[GETTER(G_REQUESTED_LIMIT)];
    double limit_w = limit_mw / 1000.0, bmc_w = real_at(base + C_BMC_LIMIT_W);
    if (limit_w < real_at(base + C_LIMIT_MIN_W) || limit_w > real_at(base + C_LIMIT_MAX_W))
        return SIM_INVALID;
    set_real(base + C_LIMIT_W, limit_w);
    int64_t enforced_mw = bmc_w > 0 && bmc_w < limit_w ? (int64_t)(bmc_w * 1000.0) : (int64_t)limit_mw;
    words[GETTER(G_REQUESTED_LIMIT) + 1] = words[base + F_BASE + 2 * 192 + 1] = limit_mw;
    words[GETTER(G_ENFORCED_LIMIT) + 1] = words[base + F_BASE + 2 * 190 + 1] = enforced_mw;
    return SIM_SUCCESS;
}
API nvmlDeviceSetGpuLockedClocks(void *handle, unsigned low_mhz, unsigned high_mhz)
{
    (void)low_mhz;
    ENTER(handle);
    if (!words[H_SET_RETURN])
        set_real(base + C_LOCK_MHZ, high_mhz);
    return (int)words[H_SET_RETURN];
}
API nvmlDeviceResetGpuLockedClocks(void *handle) { return nvmlDeviceSetGpuLockedClocks(handle, 0, 0); }

/* MIG. */
API nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *out)
{
    ENTER(handle);
    *out = 7;
    return SIM_SUCCESS;
}
API nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **out)
{
    ENTER(handle);
    if (index >= words[base + M_COUNT])
        return SIM_NOT_FOUND;
    *out = (char *)handle + 1 + index;
    return SIM_SUCCESS;
}
API nvmlDeviceGetGpuInstanceId(void *handle, unsigned *out)
{
    ENTER(handle);
    if (row < 0)
        return SIM_INVALID;
    *out = (unsigned)words[base + M_BASE + M_WORDS * row];
    return SIM_SUCCESS;
}

/* GPM: a sample is simulated time and the integral of an instance's activity. */
typedef struct { int64_t time_ns; double activity_ns; } gpm_sample;
API nvmlGpmSampleAlloc(void **out)
{
    int code = driver();
    if (!code)
        *out = calloc(1, sizeof(gpm_sample));
    return code;
}
API nvmlGpmSampleFree(void *sample)
{
    int code = driver();
    if (!code)
        free(sample);
    return code;
}
API nvmlGpmMigSampleGet(void *handle, unsigned instance, gpm_sample *sample)
{
    ENTER(handle);
    for (int64_t i = 0; i < words[base + M_COUNT]; i++)
        if (words[base + M_BASE + M_WORDS * i] == instance) {
            sample->time_ns = words[H_SIM_TIME_NS];
            sample->activity_ns = real_at(base + M_BASE + M_WORDS * i + 4);
            return SIM_SUCCESS;
        }
    return SIM_INVALID;
}
API nvmlGpmMetricsGet(sim_gpm_request *request)
{
    int code = driver();
    gpm_sample *a = request->first, *b = request->second;
    if (code || !a || !b)
        return code ? code : SIM_INVALID;
    for (unsigned i = 0; i < request->count; i++) {
        sim_gpm_metric *metric = &request->metrics[i];
        int known = metric->id == 2 && b->time_ns > a->time_ns;
        metric->code = known ? SIM_SUCCESS : SIM_NOT_SUPPORTED;
        metric->value = known ? 100.0 * (b->activity_ns - a->activity_ns) / (double)(b->time_ns - a->time_ns) : 0.0;
    }
    return SIM_SUCCESS;
}

/* Events: each set has its own cursor in the file's ring. Slot `gpus` of the masks is for system events. */
typedef struct { int64_t cursor; uint64_t masks[65]; } event_set;
static int new_set(void **out)
{
    int code = driver();
    if (!code) {
        event_set *set = calloc(1, sizeof *set);
        set->cursor = words[H_EVENT_HEAD];
        *out = set;
    }
    return code;
}
API nvmlEventSetCreate(void **out) { return new_set(out); }
API nvmlEventSetFree(void *set)
{
    free(set);
    return driver();
}
API nvmlDeviceGetSupportedEventTypes(void *handle, uint64_t *out)
{
    ENTER(handle);
    *out = (uint64_t)words[base + C_EVENT_TYPES];
    return SIM_SUCCESS;
}
API nvmlDeviceRegisterEvents(void *handle, uint64_t types, event_set *set)
{
    ENTER(handle);
    if (types & ~(uint64_t)words[base + C_EVENT_TYPES])
        return SIM_NOT_SUPPORTED;
    set->masks[(base - HEADER_WORDS) / GPU_WORDS] |= types;
    return SIM_SUCCESS;
}
static int next_event(event_set *set, unsigned timeout_ms, int64_t event[4])
{
    int64_t deadline = now_ns() + timeout_ms * 1000000LL;
    for (;;) {
        int code = driver();
        int64_t head = words ? words[H_EVENT_HEAD] : 0;
        if (code)
            return code;
        if (set->cursor < head - EVENT_SLOTS)
            set->cursor = head - EVENT_SLOTS;
        while (set->cursor < head) {
            volatile int64_t *slot = &words[H_EVENTS + EVENT_WORDS * (set->cursor++ % EVENT_SLOTS)];
            int64_t gpu = slot[0];
            if (gpu < gpus && set->masks[gpu < 0 ? 64 : gpu] & (uint64_t)slot[1]) {
                for (int i = 0; i < 4; i++)
                    event[i] = slot[i];
                return SIM_SUCCESS;
            }
        }
        int64_t left = deadline - now_ns();
        if (left <= 0)
            return SIM_TIMEOUT;
        pause_ns(left < 1000000000 ? left : 1000000000); /* a driver would be woken; short naps would be charged to the reader */
    }
}
API nvmlEventSetWait_v2(event_set *set, sim_event *out, unsigned timeout_ms)
{
    int64_t event[4];
    int code = next_event(set, timeout_ms, event);
    if (!code) {
        out->device = (void *)(intptr_t)(HANDLE_BASE + HANDLE_STEP * event[0]);
        out->type = (uint64_t)event[1];
        out->data = (uint64_t)event[2];
        out->gpu_instance = out->compute_instance = (uint32_t)event[3];
    }
    return code;
}
API nvmlSystemEventSetCreate(sim_system_create *request) { return new_set(&request->set); }
API nvmlSystemEventSetFree(sim_system_create *request) { return nvmlEventSetFree(request->set); }
API nvmlSystemRegisterEvents(sim_system_register *request)
{
    int code = driver();
    if (!code)
        ((event_set *)request->set)->masks[64] |= request->types;
    return code;
}
API nvmlSystemEventSetWait(sim_system_wait *request)
{
    int64_t event[4];
    int code = next_event(request->set, request->timeout_ms, event);
    request->count = 0;
    if (!code) {
        request->data[0].type = (uint64_t)event[1];
        request->data[0].gpu = (uint32_t)event[2];
        request->count = 1;
    }
    return code;
}

/* Structures and numbers of NVML that nvmlsim.c answers with; abi.c proves them equal to NVIDIA's header. */
#ifndef NVMLSIM_H
#define NVMLSIM_H
#include <stdint.h>

typedef struct { uint32_t field_id, scope_id; int64_t timestamp_us, latency_us; uint32_t value_type, code; uint64_t value; } sim_field_value;
typedef struct { uint64_t total, free, used; } sim_memory;
typedef struct { uint32_t version; uint64_t total, reserved, free, used; } sim_memory_v2;
typedef struct { uint32_t gpu, memory; } sim_utilization;
typedef struct { uint32_t version, sensor; int32_t temperature; } sim_temperature;
typedef struct { uint32_t version; int32_t margin; } sim_margin;
typedef struct { char bus_id_legacy[16]; uint32_t domain, bus, device, device_id, subsystem_id; char bus_id[32]; } sim_pci;
typedef struct { uint32_t pid; uint64_t used; uint32_t gpu_instance, compute_instance; } sim_process;
typedef struct { void *device; uint64_t type, data; uint32_t gpu_instance, compute_instance; } sim_event;
typedef struct { uint32_t version; void *set; } sim_system_create;
typedef struct { uint32_t version; uint64_t types; void *set; } sim_system_register;
typedef struct { uint64_t type; uint32_t gpu; } sim_system_event;
typedef struct { uint32_t version, timeout_ms; void *set; sim_system_event *data; uint32_t size, count; } sim_system_wait;
typedef struct { uint32_t version; uint8_t cluster[16]; uint32_t status, clique, state, health_mask; } sim_fabric;
typedef struct { uint32_t version, supported[8], requested[8], enforced[8]; } sim_power_profiles;
typedef struct { uint32_t id, code; double value; char *names[3]; } sim_gpm_metric;
typedef struct { uint32_t version, count; void *first, *second; sim_gpm_metric metrics[1]; } sim_gpm_request;

enum {
    SIM_SUCCESS = 0, SIM_UNINITIALIZED = 1, SIM_INVALID = 2, SIM_NOT_SUPPORTED = 3, SIM_NO_PERMISSION = 4, SIM_NOT_FOUND = 6,
    SIM_INSUFFICIENT_SIZE = 7, SIM_DRIVER_NOT_LOADED = 9, SIM_TIMEOUT = 10, SIM_GPU_IS_LOST = 15, SIM_RESET_REQUIRED = 16,
    SIM_VERSION_MISMATCH = 18, SIM_UNKNOWN = 999
};
#endif

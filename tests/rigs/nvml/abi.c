/* Compiles only when nvmlsim.h describes the same memory and numbers as NVIDIA's own header. */
#include <stddef.h>
#include <nvml.h>
#include "nvmlsim.h"

#define SAME_SIZE(ours, theirs) _Static_assert(sizeof(ours) == sizeof(theirs), #theirs)
#define SAME_PLACE(ours, a, theirs, b) _Static_assert(offsetof(ours, a) == offsetof(theirs, b), #theirs "." #b)
#define SAME_NUMBER(a, b) _Static_assert((long long)(a) == (long long)(b), #b)

SAME_SIZE(sim_field_value, nvmlFieldValue_t);
SAME_PLACE(sim_field_value, timestamp_us, nvmlFieldValue_t, timestamp);
SAME_PLACE(sim_field_value, latency_us, nvmlFieldValue_t, latencyUsec);
SAME_PLACE(sim_field_value, value_type, nvmlFieldValue_t, valueType);
SAME_PLACE(sim_field_value, code, nvmlFieldValue_t, nvmlReturn);
SAME_PLACE(sim_field_value, value, nvmlFieldValue_t, value);
SAME_SIZE(sim_memory, nvmlMemory_t);
SAME_PLACE(sim_memory, used, nvmlMemory_t, used);
SAME_SIZE(sim_memory_v2, nvmlMemory_v2_t);
SAME_PLACE(sim_memory_v2, reserved, nvmlMemory_v2_t, reserved);
SAME_PLACE(sim_memory_v2, used, nvmlMemory_v2_t, used);
SAME_SIZE(sim_utilization, nvmlUtilization_t);
SAME_SIZE(sim_temperature, nvmlTemperature_v1_t);
SAME_PLACE(sim_temperature, temperature, nvmlTemperature_v1_t, temperature);
SAME_SIZE(sim_margin, nvmlMarginTemperature_v1_t);
SAME_SIZE(sim_pci, nvmlPciInfo_t);
SAME_PLACE(sim_pci, domain, nvmlPciInfo_t, domain);
SAME_PLACE(sim_pci, bus_id, nvmlPciInfo_t, busId);
SAME_SIZE(sim_process, nvmlProcessInfo_t);
SAME_PLACE(sim_process, used, nvmlProcessInfo_t, usedGpuMemory);
SAME_SIZE(sim_event, nvmlEventData_t);
SAME_PLACE(sim_event, type, nvmlEventData_t, eventType);
SAME_PLACE(sim_event, gpu_instance, nvmlEventData_t, gpuInstanceId);
SAME_SIZE(sim_system_create, nvmlSystemEventSetCreateRequest_v1_t);
SAME_PLACE(sim_system_create, set, nvmlSystemEventSetCreateRequest_v1_t, set);
SAME_SIZE(sim_system_register, nvmlSystemRegisterEventRequest_v1_t);
SAME_PLACE(sim_system_register, set, nvmlSystemRegisterEventRequest_v1_t, set);
SAME_SIZE(sim_system_event, nvmlSystemEventData_v1_t);
SAME_SIZE(sim_system_wait, nvmlSystemEventSetWaitRequest_v1_t);
SAME_PLACE(sim_system_wait, data, nvmlSystemEventSetWaitRequest_v1_t, data);
SAME_PLACE(sim_system_wait, count, nvmlSystemEventSetWaitRequest_v1_t, numEvent);
SAME_SIZE(sim_fabric, nvmlGpuFabricInfo_v2_t);
SAME_PLACE(sim_fabric, state, nvmlGpuFabricInfo_v2_t, state);
SAME_PLACE(sim_fabric, status, nvmlGpuFabricInfo_v2_t, status);
SAME_SIZE(sim_gpm_metric, nvmlGpmMetric_t);
SAME_PLACE(sim_gpm_metric, value, nvmlGpmMetric_t, value);
SAME_PLACE(sim_gpm_request, first, nvmlGpmMetricsGet_t, sample1);
SAME_PLACE(sim_gpm_request, metrics, nvmlGpmMetricsGet_t, metrics);

SAME_NUMBER(SIM_UNINITIALIZED, NVML_ERROR_UNINITIALIZED);
SAME_NUMBER(SIM_INVALID, NVML_ERROR_INVALID_ARGUMENT);
SAME_NUMBER(SIM_NOT_SUPPORTED, NVML_ERROR_NOT_SUPPORTED);
SAME_NUMBER(SIM_NO_PERMISSION, NVML_ERROR_NO_PERMISSION);
SAME_NUMBER(SIM_NOT_FOUND, NVML_ERROR_NOT_FOUND);
SAME_NUMBER(SIM_INSUFFICIENT_SIZE, NVML_ERROR_INSUFFICIENT_SIZE);
SAME_NUMBER(SIM_DRIVER_NOT_LOADED, NVML_ERROR_DRIVER_NOT_LOADED);
SAME_NUMBER(SIM_TIMEOUT, NVML_ERROR_TIMEOUT);
SAME_NUMBER(SIM_GPU_IS_LOST, NVML_ERROR_GPU_IS_LOST);
SAME_NUMBER(SIM_RESET_REQUIRED, NVML_ERROR_RESET_REQUIRED);
SAME_NUMBER(SIM_VERSION_MISMATCH, NVML_ERROR_LIB_RM_VERSION_MISMATCH);
SAME_NUMBER(SIM_UNKNOWN, NVML_ERROR_UNKNOWN);

/* Field ids of the agent's table (headers.py), without the slowdown times and power smoothing: their ids moved between
 * drivers. */
#include "field_ids.h"

/* Other numbers that the agent and the state file use by value. */
SAME_NUMBER(nvmlEventTypeXidCriticalError, 0x8);
SAME_NUMBER(nvmlEventMigConfigChange, 0x100);
SAME_NUMBER(nvmlEventTypeGpuUnavailableError, 0x4000);
SAME_NUMBER(nvmlEventTypeGpuRecoveryAction, 0x8000);
SAME_NUMBER(nvmlSystemEventTypeGpuDriverUnbind, 0x1);
SAME_NUMBER(nvmlSystemEventTypeGpuDriverBind, 0x2);
SAME_NUMBER(nvmlClocksEventReasonSwPowerCap, 0x4);
SAME_NUMBER(nvmlClocksThrottleReasonHwSlowdown, 0x8);
SAME_NUMBER(nvmlClocksEventReasonSwThermalSlowdown, 0x20);
SAME_NUMBER(nvmlClocksThrottleReasonHwThermalSlowdown, 0x40);
SAME_NUMBER(nvmlClocksThrottleReasonHwPowerBrakeSlowdown, 0x80);
SAME_NUMBER(NVML_GPM_METRIC_SM_UTIL, 2);

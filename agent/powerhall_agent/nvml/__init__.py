"""NVML through unmodified pynvml: return codes, batches of fields and getters, and one driver session."""

"""NVML through unmodified pynvml: return codes, field batches, and one loaded driver generation."""

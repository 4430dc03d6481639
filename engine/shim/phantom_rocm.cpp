// Phantom AMD GPUs under ROCm: llama.cpp's CUDA backend, compiled with HIP.

#define GGML_USE_HIP
#include "phantom_cuda.inl"

const phantom_rules phantom_rocm = {
    /* .registry       = */ "ROCm",
    /* .host_buffer    = */ "ROCm_Host",
    /* .capability     = */ 0x1100, // gfx1100, RDNA 3
    /* .caps           = */ [](const phantom & device) -> ggml_backend_dev_caps {
        return { true, true, false, true, !device.integrated };
    },
    /* .type           = */ [](const phantom & device) {
        return device.integrated ? GGML_BACKEND_DEVICE_TYPE_IGPU : GGML_BACKEND_DEVICE_TYPE_GPU;
    },
    /* .add            = */ [](phantom & device) {
        INFO.devices.push_back({ GGML_CUDA_CC_OFFSET_AMD + (int) device.capability, false, 64 * 1024 });
    },
    /* .alignment      = */ [](ggml_backend_buffer_type_t) -> size_t { return 128; },
    /* .max_size       = */ nullptr,
    /* .alloc_size     = */ ggml_backend_cuda_buffer_type_get_alloc_size,
    /* .host_alignment = */ nullptr,
    /* .host_max_size  = */ nullptr,
    /* .supports_op    = */ ggml_backend_cuda_device_supports_op,
    /* .supports_buft  = */ ggml_backend_cuda_device_supports_buft,
    /* .offload_op     = */ ggml_backend_cuda_device_offload_op,
    /* .graph_optimize = */ ggml_backend_cuda_graph_optimize,
};

namespace {
const phantom_rules & SELF = phantom_rocm;
}

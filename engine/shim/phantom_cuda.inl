// The body of phantom_cuda.cpp and phantom_rocm.cpp: ggml-cuda is one source for both, compiled for NVIDIA or, with
// GGML_USE_HIP, for AMD. What is here stands in for what upstream's functions use of the CUDA toolkit and of the rest of
// ggml-cuda; the functions themselves come from upstream_cuda.inc (build/upstream.rs):
//   sizes       ggml_backend_cuda_buffer_type_get_alloc_size, ggml_cuda_flash_attn_ext_get_alloc_size (F16 copies of a
//               quantized KV cache, by the kernel that ggml_cuda_get_best_fattn_kernel chooses for the generation)
//   operations  ggml_backend_cuda_device_supports_op, …_supports_buft, …_offload_op
//   order       ggml_backend_cuda_graph_optimize (fusions that keep tensors longer)
// Mirrored by hand, because they only call the toolkit: alignment (ggml_backend_cuda_buffer_type_get_alignment), the
// type of device (…_device_get_type), caps (…_device_get_props), pinned host memory (ggml_backend_cuda_host_buffer_type).
// Which kernels a build has is its choice of architectures and of GGML_CUDA_FA_QUANTS: this takes the defaults of a build
// that travels.

#include "phantom_device.h"

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"
#include "ggml-impl.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <initializer_list>
#include <vector>

namespace {

#define __host__
#define __device__
#define FLASH_ATTN_AVAILABLE
#ifndef GGML_USE_HIP
// CUDA from 11.7 on has CUB's sorts (common.cuh).
#define GGML_CUDA_USE_CUB
#endif

struct cuda_device {
    int    cc;
    bool   integrated; // upstream never sets it: "temporarily disabled due to issues with corrupted output"
    size_t smpb;       // shared memory of a block
};

struct cuda_info {
    std::vector<cuda_device> devices;
};

cuda_info INFO;

const cuda_info & ggml_cuda_info() {
    return INFO;
}

int current = 0;

void ggml_cuda_set_device(int device) {
    current = device;
}

[[maybe_unused]] int ggml_cuda_get_device() {
    return current;
}

// ggml-cuda's CMakeLists.txt: the architectures of a build that is not native. A device runs the newest at or below its own.
int ggml_cuda_highest_compiled_arch(int arch) {
#ifdef GGML_USE_HIP
    return arch;
#else
    int found = -1;
    for (int compiled : { 500, 610, 700, 750, 800, 860, 890, 900, 1200, 1210 }) {
        if (compiled <= arch) {
            found = compiled;
        }
    }
    return found;
#endif
}

using ggml_backend_cuda_context             = phantom;
using ggml_backend_cuda_buffer_type_context = phantom;
using ggml_backend_cuda_device_context      = phantom;

extern const phantom_rules & SELF;

bool ggml_backend_buft_is_cuda(ggml_backend_buffer_type_t type) {
    return phantom_is_memory_of(type, SELF);
}

bool ggml_backend_buft_is_cuda_host(ggml_backend_buffer_type_t type) {
    return type->iface.get_name == phantom_host_buffer_name && static_cast<phantom *>(type->context)->rules == &SELF;
}

// A vector kernel is only asked whether it is compiled.
template <int, ggml_type, ggml_type> void ggml_cuda_flash_attn_ext_vec_case(ggml_backend_cuda_context &, ggml_tensor *) {}

bool ggml_cuda_flash_attn_ext_mma_f16_shall_use_sparse(int cc, const ggml_tensor * dst, int ncols1, int ncols2);

#include "upstream_cuda.inc"

} // namespace

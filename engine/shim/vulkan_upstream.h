// What llama.cpp's Vulkan backend says of operations and graphs, for a device that is not here.
#pragma once

#include "ggml-backend-impl.h"

// What of a Vulkan device changes where tensors go and how large they become.
struct ms_vulkan_limits {
    size_t   alignment;         // minStorageBufferOffsetAlignment
    size_t   host_alignment;    // minMemoryMapAlignment
    uint64_t max_buffer;        // maxBufferSize
    uint64_t max_allocation;    // the smaller of it and maxMemoryAllocationSize
    uint64_t max_storage_range; // maxStorageBufferRange; no limit with VK_EXT_shader_64bit_indexing
    uint32_t max_workgroup;     // maxComputeWorkGroupInvocations
    uint32_t shared_memory;     // maxComputeSharedMemorySize
    uint32_t subgroup;          // subgroupSize
    bool     subgroup_shuffle;  // with votes: flash attention needs both
    bool     full_subgroups;    // VK_EXT_subgroup_size_control with computeFullSubgroups
    bool     fp16;              // half floats in shaders
    bool     memory_model;      // vulkanMemoryModel
};

bool ms_vulkan_supports_op(const ms_vulkan_limits & limits, const ggml_tensor * op);
bool ms_vulkan_offload_op(const ggml_tensor * op);
void ms_vulkan_graph_optimize(ggml_cgraph * graph, ggml_backend_graph_optimize_params * params);
// How much llama.cpp puts into one buffer at most.
size_t ms_vulkan_block(const ms_vulkan_limits & limits);

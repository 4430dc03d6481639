// Tensor overrides in as few patterns as say the same.
#pragma once

#include "llama.h"

#include <cstdint>
#include <string>
#include <vector>

// Overrides, and the texts that they point to. Ended by one without a pattern.
struct ms_overrides {
    std::vector<std::string>                      patterns;
    std::vector<llama_model_tensor_buft_override> entries;

    // The first match decides, as in llama.cpp.
    void set(const std::vector<std::pair<std::string, ggml_backend_buffer_type_t>> & wanted);
};

// A pattern of the numbers of layers in tensors' names (`blk.12.`): `12|3.` is 12 and the thirties.
std::string ms_layer_numbers(const std::vector<uint32_t> & layers);

// llama.cpp compiles every pattern anew for every tensor: seconds, where a fit names ninety layers one by one. Runs of
// overrides that say the same of several layers become one each, which finds the same tensors.
void ms_merge_overrides(const llama_model_tensor_buft_override * given, ms_overrides & out);

// llama.cpp's own fit of a model to the free memory of devices, faster than it is compiled there.
#pragma once

#include "fit.h"

// Takes and gives what `common_fit_params` does, and the same placement: its very text (engine/build/upstream.rs) around
// measurements that are remembered, and made with merged overrides.
common_params_fit_status ms_fit_params(
    const char * path, llama_model_params * model, llama_context_params * context, float * split,
    llama_model_tensor_buft_override * overrides, size_t * margins, uint32_t min_context);

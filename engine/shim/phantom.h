// The devices that ms_phantoms_register made, for those who open models.
#pragma once

#include "ggml-backend.h"

#include <vector>

// What shim.h has room for in ms_model_facts::split.
constexpr size_t MS_MAX_DEVICES = 16;

// In the order of registering.
const std::vector<ggml_backend_dev_t> & ms_phantom_devices();

// What so large a compute buffer is when it is really allocated: pinned memory of some backends is more than was asked for.
size_t ms_phantom_allocated(ggml_backend_buffer_type_t type, size_t size);

// The device of each layer of a model that is all on devices; empty for others. llama.cpp pins the first norm of a layer to
// its device. A real load keeps that; the dry run forgets it (ggml_backend_sched_reserve_size resets the scheduler), computes
// the norm on the device before and counts one more tensor that crosses, for each copy of a pipeline.
void ms_phantoms_place_layers(std::vector<ggml_backend_dev_t> layers);

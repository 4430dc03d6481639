// The devices that ms_phantoms_register made, for those who open models.
#pragma once

#include "ggml-backend.h"

#include <vector>

// What shim.h has room for in ms_model_facts::split.
constexpr size_t MS_MAX_DEVICES = 16;

// In the order of registering.
const std::vector<ggml_backend_dev_t> & ms_phantom_devices();

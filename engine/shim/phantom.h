// The devices that ms_phantoms_register made, for those who open models.
#pragma once

#include "ggml-backend.h"

#include <vector>

// In the order of registering.
const std::vector<ggml_backend_dev_t> & ms_phantom_devices();

#include "placement.h"

#include "log.h"
#include "llama-ext.h"
#include "overrides.h"

#include <array>
#include <cassert>
#include <cinttypes>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

namespace upstream {
namespace {

// What a model that is loaded only to be counted depends on within one fit: layers, split, overrides.
using placement = std::tuple<int32_t, std::vector<float>, std::vector<std::pair<std::string, ggml_backend_buffer_type_t>>>;

placement placement_of(const llama_model_params & model) {
    placement of = { model.n_gpu_layers, {}, {} };
    if (model.tensor_split) {
        std::get<1>(of).assign(model.tensor_split, model.tensor_split + llama_max_devices());
    }
    for (const auto * one = model.tensor_buft_overrides; one && one->pattern; one++) {
        std::get<2>(of).emplace_back(one->pattern, one->buft);
    }
    return of;
}

// All below is of the fit that runs: a worker's jobs have one thread.
llama_model * last = nullptr;
placement     last_placement;

void forget_model() {
    llama_model_free(last);
    last = nullptr;
}

// Loads to count, as llama.cpp would with the same overrides one by one. The same placement at another context is the same
// model.
llama_model * load_merged(const char * path, llama_model_params params) {
    placement wanted = placement_of(params);
    if (last && wanted == last_placement) {
        return last;
    }
    forget_model();
    ms_overrides merged;
    if (params.tensor_buft_overrides) {
        ms_merge_overrides(params.tensor_buft_overrides, merged);
        params.tensor_buft_overrides = merged.entries.data();
    }
    last           = llama_model_load_from_file(path, params);
    last_placement = std::move(wanted);
    return last;
}

void keep(llama_model *) {}

void print_nothing(const llama_context *) {}

#define llama_model_load_from_file load_merged
#define llama_model_free keep
#define common_memory_breakdown_print print_nothing
#define common_get_device_memory_data_impl measured
#include "upstream_fit_measure.inc"
#undef llama_model_load_from_file
#undef llama_model_free
#undef common_memory_breakdown_print
#undef common_get_device_memory_data_impl

struct answer {
    std::vector<llama_device_memory_data> memory;
    std::vector<ggml_backend_dev_t>       devices;
    uint32_t                              layers;
    uint32_t                              context_train;
    uint32_t                              experts;
};

// By placement and context.
std::map<std::pair<placement, uint32_t>, answer> answers;

std::vector<llama_device_memory_data> common_get_device_memory_data_impl(
    const char * path, const llama_model_params * model, const llama_context_params * context,
    std::vector<ggml_backend_dev_t> & devices, uint32_t & layers, uint32_t & context_train, uint32_t & experts,
    ggml_log_level level) {
    const auto asked = std::make_pair(placement_of(*model), context->n_ctx);
    auto known = answers.find(asked);
    if (known == answers.end()) {
        answer fresh;
        fresh.memory = measured(path, model, context, fresh.devices, fresh.layers, fresh.context_train, fresh.experts, level);
        known        = answers.emplace(asked, std::move(fresh)).first;
    }
    const answer & found = known->second;
    devices              = found.devices;
    layers               = found.layers;
    context_train        = found.context_train;
    experts              = found.experts;
    return found.memory;
}

#include "upstream_fit.inc"

} // namespace
} // namespace upstream

common_params_fit_status ms_fit_params(
    const char * path, llama_model_params * model, llama_context_params * context, float * split,
    llama_model_tensor_buft_override * overrides, size_t * margins, uint32_t min_context) {
    const auto status = upstream::common_fit_params(
        path, model, context, split, overrides, margins, min_context, nullptr, GGML_LOG_LEVEL_ERROR);
    upstream::answers.clear();
    upstream::forget_model();
    return status;
}

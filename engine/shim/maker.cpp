// What a model of given metadata consists of, asked of llama.cpp itself: the tensors that it would create, and the types
// that its quantizer would give them. No table of names and no copy of a rule is here.

#include "error.h"

#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "gguf.h"
#include "llama-cpp.h"
#include "llama-ext.h"
#include "llama-model-loader.h"
#include "llama-model.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <vector>

struct ms_maker {
    gguf_context_ptr metadata; // the model reads it while it lives
    llama_model_ptr  model;
};

ms_maker * ms_maker_new(const void * metadata, size_t length, ms_error * error) {
    return ms_guard(error, (ms_maker *) nullptr, [&] {
        auto maker = std::make_unique<ms_maker>();
        maker->metadata.reset(gguf_init_from_buffer(metadata, length, { /*.no_alloc =*/ true, /*.ctx =*/ nullptr }));
        const auto failed = [](const char * otherwise) {
            ms_error said = {};
            ms_take_errors(&said);
            return std::runtime_error(said.text[0] ? said.text : otherwise);
        };
        if (!maker->metadata) {
            throw failed("llama.cpp does not read the metadata and said no reason");
        }
        ggml_backend_dev_t devices[] = { nullptr };
        llama_model_params params    = llama_model_default_params();
        params.devices               = devices;
        params.n_gpu_layers          = 0;
        params.no_alloc              = true;
        params.load_mtp              = true; // blocks that predict further tokens are part of a file too
        maker->model.reset(llama_model_init_from_user(maker->metadata.get(), [](ggml_tensor *, void *) {}, nullptr, params));
        if (!maker->model) {
            throw failed("llama.cpp makes no model of this metadata and said no reason");
        }
        return maker.release();
    });
}

void ms_maker_free(ms_maker * maker) {
    ms_guard(nullptr, false, [&] {
        delete maker;
        return true;
    });
}

size_t ms_maker_tensors(const ms_maker * maker, ms_tensor * out, size_t capacity) {
    return ms_guard(nullptr, (size_t) 0, [&] {
        const auto & tensors = llama_internal_get_tensor_map(maker->model.get());
        for (size_t i = 0; i < std::min(capacity, tensors.size()); i++) {
            ms_copy(out[i].name, sizeof out[i].name, tensors[i].first);
            std::copy_n(tensors[i].second->ne, GGML_MAX_DIMS, out[i].shape);
            out[i].type = tensors[i].second->type;
        }
        return tensors.size();
    });
}

bool ms_maker_types(const ms_maker * maker, int32_t file_type, ms_tensor * tensors, size_t count, ms_error * error) {
    return ms_guard(error, false, [&] {
        const auto wanted = (llama_ftype) file_type;
        if (llama_ftype_get_default_type(wanted) == GGML_TYPE_COUNT) {
            throw std::runtime_error("llama.cpp cannot make this quantization");
        }
        // The rules count tensors as they come, so they must come as in a real file: in the loader's order.
        std::vector<size_t> order(count);
        std::iota(order.begin(), order.end(), 0);
        const llama_model_loader::weight_name_comparer before;
        std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return before(tensors[a].name, tensors[b].name); });

        ggml_context_ptr context(ggml_init({ ggml_tensor_overhead() * (count + 1), nullptr, /*.no_alloc =*/ true }));
        if (!context) {
            throw std::runtime_error("no memory for the tensors' descriptions");
        }
        llama_model_quantize_params                                      params = llama_model_quantize_default_params();
        std::unique_ptr<quantize_state_impl, decltype(&llama_quant_free)> state(
                llama_quant_init(maker->model.get(), &params), llama_quant_free);
        std::vector<ggml_tensor *> candidates;
        std::vector<size_t>        places;
        for (const size_t i : order) {
            ggml_tensor * tensor = ggml_new_tensor(context.get(), (ggml_type) tensors[i].type, GGML_MAX_DIMS, tensors[i].shape);
            ggml_set_name(tensor, tensors[i].name);
            if (llama_quant_tensor_allows_quantization(state.get(), tensor)) {
                candidates.push_back(tensor);
                places.push_back(i);
            }
        }
        std::vector<ggml_type> types(candidates.size());
        llama_quant_compute_types(state.get(), wanted, candidates.data(), types.data(), candidates.size());
        for (size_t i = 0; i < candidates.size(); i++) {
            tensors[places[i]].type = types[i];
        }
        return true;
    });
}

bool ms_encode(
        int32_t type, const float * values, int64_t columns, int64_t rows, void * out, size_t capacity, ms_error * error) {
    return ms_guard(error, false, [&] {
        const auto wanted = (ggml_type) type;
        if (type < 0 || type >= GGML_TYPE_COUNT || columns % ggml_blck_size(wanted) != 0 ||
            ggml_row_size(wanted, columns) * (size_t) rows != capacity) {
            throw std::runtime_error("values do not fill rows of this type");
        }
        if (wanted == GGML_TYPE_F32) {
            std::memcpy(out, values, capacity);
            return true;
        }
        // Some types are only made with an importance of each column; here all are alike.
        const std::vector<float> importance((size_t) columns, 1.0f);
        ggml_quantize_chunk(wanted, values, out, 0, rows, columns, importance.data());
        return true;
    });
}

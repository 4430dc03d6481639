// Opening a model, really or only to count; its memory; decoding.

#include "model.h"

#include "error.h"
#include "overrides.h"
#include "phantom.h"
#include "placement.h"

#include "common.h"
#include "fit.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "llama-ext.h"
#include "llama-model.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>
#include <stdexcept>

namespace {

// llama.cpp's parameters, and what they point to.
struct parameters {
    llama_model_params              model;
    llama_context_params            context;
    std::vector<ggml_backend_dev_t> devices;
    std::vector<float>              split;
    ms_overrides                    overrides;
};

constexpr const char * HOST = "CPU";

ggml_backend_buffer_type_t place_of(const parameters & params, const std::string & name) {
    if (name == HOST) {
        return ggml_backend_cpu_buffer_type();
    }
    for (ggml_backend_dev_t device : params.devices) {
        if (device && name == ggml_backend_dev_name(device)) {
            return ggml_backend_dev_buffer_type(device);
        }
    }
    if (ggml_backend_dev_t device = params.devices.empty() ? ggml_backend_dev_by_name(name.c_str()) : nullptr) {
        return ggml_backend_dev_buffer_type(device);
    }
    throw std::runtime_error("no device " + name + " for a tensor override");
}

std::string name_of(ggml_backend_buffer_type_t type) {
    ggml_backend_dev_t device = ggml_backend_buft_is_host(type) ? nullptr : ggml_backend_buft_get_device(type);
    return device ? ggml_backend_dev_name(device) : HOST;
}

// llama.cpp's --n-cpu-moe has such a pattern for each layer (llm_ffn_block_regex). One for all finds the same tensors.
std::string experts_of_first(uint32_t layers) {
    std::vector<uint32_t> numbers(layers);
    std::iota(numbers.begin(), numbers.end(), 0);
    return "blk\\.(" + ms_layer_numbers(numbers) + ")" + LLM_FFN_EXPS_REGEX;
}

// Split and overrides: those given, then the experts of the first layers.
void fill_layout(parameters & out, const ms_settings & settings, const ms_layout & layout) {
    if (layout.split_count > llama_max_devices()) {
        throw std::runtime_error("a split over more devices than llama.cpp takes");
    }
    if (layout.override_count + 1 >= llama_max_tensor_buft_overrides()) {
        throw std::runtime_error("more tensor overrides than llama.cpp takes");
    }
    if (settings.expert_layers_on_host > 1000) {
        throw std::runtime_error("experts of more than 1000 layers on the host: no model has so many");
    }
    out.split.assign(layout.split, layout.split + layout.split_count);
    out.split.resize(llama_max_devices(), 0.0f);
    out.model.tensor_split = layout.split_count ? out.split.data() : nullptr;

    std::vector<std::pair<std::string, ggml_backend_buffer_type_t>> wanted;
    for (size_t i = 0; i < layout.override_count; i++) {
        wanted.emplace_back(layout.overrides[i].pattern, place_of(out, layout.overrides[i].device));
    }
    if (settings.expert_layers_on_host) {
        wanted.emplace_back(experts_of_first(settings.expert_layers_on_host), ggml_backend_cpu_buffer_type());
    }
    if (wanted.empty()) {
        return;
    }
    out.overrides.set(wanted);
    out.model.tensor_buft_overrides = out.overrides.entries.data();
}

ggml_type kv_type(int32_t number) {
    switch (number) {
        case 1: return GGML_TYPE_F16;
        case 2: return GGML_TYPE_Q8_0;
        case 3: return GGML_TYPE_Q4_0;
    }
    throw std::runtime_error("unknown type of KV cache");
}

llama_flash_attn_type flash_attention(int32_t number) {
    switch (number) {
        case 1: return LLAMA_FLASH_ATTN_TYPE_AUTO;
        case 2: return LLAMA_FLASH_ATTN_TYPE_ENABLED;
        case 3: return LLAMA_FLASH_ATTN_TYPE_DISABLED;
    }
    throw std::runtime_error("unknown choice of flash attention");
}

// The one place where settings become llama.cpp's parameters. Sizing and loading both come through here, which is why an
// estimate is what happens.
void fill(parameters & out, const ms_settings & settings, const ms_layout & layout) {
    const uint64_t context =
        settings.total_context ? settings.total_context : (uint64_t) settings.context * settings.parallel;
    if ((settings.context == 0 && !settings.fit) || settings.parallel == 0 || settings.batch == 0 || settings.ubatch == 0) {
        throw std::runtime_error("context, parallel, batch and ubatch must be at least 1");
    }
    if ((settings.encoder ? settings.ubatch : settings.batch) < settings.parallel) {
        throw std::runtime_error("batch must be at least parallel: every sequence decodes a token in each step");
    }
    if (context > INT32_MAX || settings.batch > INT32_MAX || settings.parallel > llama_max_parallel_sequences()) {
        throw std::runtime_error("context or parallel is too large");
    }
    out.model                 = llama_model_default_params();
    out.model.n_gpu_layers    = settings.gpu_layers;
    out.model.use_extra_bufts = true;
    out.model.no_alloc        = settings.no_alloc;
    // Not mapped: then every byte is in a buffer that llama.cpp counts, in the dry run as in the real one.
    out.model.load_mode = LLAMA_LOAD_MODE_NONE;
    if (settings.cpu_only) {
        out.model.n_gpu_layers = 0;
        out.devices            = { nullptr };
        out.model.devices      = out.devices.data();
    } else if (settings.phantoms) {
        out.devices = ms_phantom_devices();
        out.devices.push_back(nullptr);
        out.model.devices = out.devices.data();
    }

    out.context                 = llama_context_default_params();
    out.context.n_ctx           = (uint32_t) context;
    out.context.n_batch         = settings.encoder ? settings.ubatch : settings.batch;
    out.context.n_ubatch        = settings.ubatch;
    out.context.n_seq_max       = settings.parallel;
    // One row of logits for each sequence is all that answering takes. 0 is a whole batch.
    out.context.n_outputs_max   = settings.all_outputs || settings.encoder ? 0 : settings.parallel;
    out.context.embeddings      = settings.encoder;
    out.context.n_threads       = (int32_t) settings.threads;
    out.context.n_threads_batch = (int32_t) settings.threads;
    out.context.flash_attn_type = flash_attention(settings.flash_attention);
    out.context.type_k          = kv_type(settings.kv_type);
    out.context.type_v          = kv_type(settings.kv_type);
    out.context.swa_full        = false;
    out.context.kv_unified      = settings.kv_unified;
    out.context.no_perf         = true;
    fill_layout(out, settings, layout);
}

// llama.cpp's own fit: fills devices from the last to the first, with experts on the host where that lets more layers in.
// It changes only what is not set, and works on the file.
void fit(parameters & out, const char * path, const ms_settings & settings) {
    const llama_model_params as_set = out.model;
    std::vector<float>       split(llama_max_devices(), 0.0f);
    std::vector<size_t>      margins(llama_max_devices(), settings.fit_margin);
    std::vector<llama_model_tensor_buft_override> overrides(llama_max_tensor_buft_overrides(), { nullptr, nullptr });

    const auto status =
        settings.fit_unmodified ?
            common_fit_params(
                path, &out.model, &out.context, split.data(), overrides.data(), margins.data(), settings.fit_min_context,
                nullptr, GGML_LOG_LEVEL_ERROR) :
            ms_fit_params(
                path, &out.model, &out.context, split.data(), overrides.data(), margins.data(), settings.fit_min_context);
    switch (status) {
        case COMMON_PARAMS_FIT_STATUS_ERROR: {
            ms_error said = {};
            ms_take_errors(&said);
            throw std::runtime_error(said.text[0] ? said.text : "llama.cpp's fit failed and said no reason");
        }
        case COMMON_PARAMS_FIT_STATUS_FAILURE:
            // It may stop half-way. What is wanted then is what the settings take, by which it is too much.
            out.model = as_set;
            return;
        case COMMON_PARAMS_FIT_STATUS_SUCCESS: break;
    }
    if (out.model.tensor_split == split.data()) {
        out.split              = split;
        out.model.tensor_split = out.split.data();
    }
    if (out.model.tensor_buft_overrides == overrides.data()) {
        ms_merge_overrides(overrides.data(), out.overrides);
        out.model.tensor_buft_overrides = out.overrides.entries.data();
    }
}

// Layers on each of several devices, the output counted as one: as a split they place a model in the same way whatever
// memory is free then.
std::vector<float> layers_by_device(const llama_model & model) {
    const int          devices = llama_model_n_devices(&model);
    std::vector<float> counts(devices, 0.0f);
    const auto         count = [&](ggml_backend_dev_t device) {
        for (int i = 0; i < devices; i++) {
            counts[i] += device == llama_model_get_device(&model, i);
        }
    };
    for (int layer = 0; layer < llama_model_n_layer(&model); layer++) {
        count(model.dev_layer(layer));
    }
    count(model.dev_output());
    return counts;
}

// The device of each layer, where there are several and all is on them.
std::vector<ggml_backend_dev_t> pinned_layers(const llama_model & model, uint32_t gpu_layers) {
    std::vector<ggml_backend_dev_t> devices;
    const auto                      layers = (uint32_t) llama_model_n_layer(&model);
    if (llama_model_n_devices(&model) > 1 && gpu_layers > layers) {
        for (uint32_t layer = 0; layer < layers; layer++) {
            devices.push_back(model.dev_layer((int) layer));
        }
    }
    return devices;
}

// Whether what was counted leaves the margin free on every device.
bool leaves_margin(const ms_model & model, uint64_t margin) {
    std::vector<ms_memory> used(1 + (size_t) llama_model_n_devices(model.model));
    ms_model_memory(&model, used.data(), used.size());
    for (size_t i = 1; i < used.size(); i++) {
        size_t free = 0, total = 0;
        ggml_backend_dev_memory(llama_model_get_device(model.model, (int) i - 1), &free, &total);
        if (used[i].model + used[i].context + used[i].compute + margin > free) {
            return false;
        }
    }
    return true;
}

// The overrides that were used, less the one at the end that `expert_layers_on_host` says again.
void remember_layout(ms_model & opened, const parameters & params, uint32_t expert_layers_on_host) {
    opened.expert_layers_on_host = expert_layers_on_host;
    const auto & all             = params.overrides.entries;
    const size_t count           = all.empty() ? 0 : all.size() - 1 - (expert_layers_on_host > 0);
    for (size_t i = 0; i < count; i++) {
        opened.overrides.emplace_back(all[i].pattern, name_of(all[i].buft));
    }
    if (llama_model_n_devices(opened.model) > 1) {
        opened.split = layers_by_device(*opened.model);
    }
}

// The CPU backend may be a plugin, so its functions are asked for, not linked.
template <typename Function> Function * cpu_function(const char * name) {
    ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (!cpu) {
        throw std::runtime_error("llama.cpp has no CPU backend here");
    }
    return (Function *) ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(cpu), name);
}

} // namespace

ms_model::~ms_model() {
    if (context) {
        llama_detach_threadpool(context);
        llama_free(context);
    }
    if (model) {
        llama_model_free(model);
    }
    if (pool) {
        if (auto * free_pool = cpu_function<decltype(ggml_threadpool_free)>("ggml_threadpool_free")) {
            free_pool(pool);
        }
    }
}

ms_model * ms_model_open(
    const char * path, const ms_settings * given, const ms_layout * layout, ms_progress progress, void * user,
    ms_error * error) {
    return ms_guard(error, (ms_model *) nullptr, [&] {
        ms_settings settings = *given;
        if (settings.threads == 0) {
            settings.threads = (uint32_t) std::max(1, common_cpu_get_num_math());
        }
        settings.threads = std::min<uint32_t>(settings.threads, GGML_MAX_N_THREADS);
        parameters params;
        fill(params, settings, *layout);
        // Without a GPU there is nothing to place, and the memory that a fit would look at is this machine's.
        const bool fitted = settings.fit && settings.no_alloc && !settings.cpu_only;
        if (fitted) {
            fit(params, path, settings);
        }
        params.model.progress_callback           = progress;
        params.model.progress_callback_user_data = user;

        const auto failed = [](const char * otherwise) {
            ms_error said = {};
            ms_take_errors(&said);
            return std::runtime_error(said.text[0] ? said.text : otherwise);
        };
        auto opened     = std::make_unique<ms_model>();
        opened->threads = settings.threads;
        opened->model   = llama_model_load_from_file(path, params.model);
        if (!opened->model) {
            throw failed("llama.cpp did not load the model and said no reason");
        }
        const auto layers = (uint32_t) llama_model_n_layer(opened->model) + 1; // the output counts as one
        const bool has_gpu = llama_model_n_devices(opened->model) > 0;
        opened->gpu_layers = !has_gpu ? 0 : params.model.n_gpu_layers < 0 ? layers : std::min(layers, (uint32_t) params.model.n_gpu_layers);
        if (settings.phantoms) {
            ms_phantoms_place_layers(pinned_layers(*opened->model, opened->gpu_layers));
        }
        {
            std::optional<ms_without_host_memory> counted;
            if (settings.no_alloc) {
                counted.emplace();
            }
            opened->context = llama_init_from_model(opened->model, params.context);
        }
        if (!opened->context) {
            throw failed("llama.cpp did not make a context and said no reason");
        }
        remember_layout(*opened, params, settings.expert_layers_on_host);
        if (fitted) {
            opened->fit = leaves_margin(*opened, settings.fit_margin) ? 1 : 2;
        }
        if (settings.no_alloc) {
            return opened.release();
        }
        if (auto * new_pool = cpu_function<decltype(ggml_threadpool_new)>("ggml_threadpool_new")) {
            ggml_threadpool_params pool = ggml_threadpool_params_default((int) settings.threads);
            pool.poll                   = 0; // a desk that waits for a question must not spin
            opened->pool                = new_pool(&pool);
            llama_attach_threadpool(opened->context, opened->pool, opened->pool);
        }
        opened->has_template = llama_model_chat_template(opened->model, nullptr) != nullptr;
        opened->templates    = common_chat_templates_init(opened->model, "");
        return opened.release();
    });
}

void ms_model_close(ms_model * model) {
    ms_guard(nullptr, false, [&] {
        delete model;
        return true;
    });
}

void ms_model_facts_get(const ms_model * model, ms_model_facts * out) {
    *out = {};
    ms_guard(nullptr, false, [&] {
        out->layers               = (uint32_t) llama_model_n_layer(model->model);
        out->context_train        = (uint32_t) llama_model_n_ctx_train(model->model);
        out->experts              = (uint32_t) std::max(0, llama_model_n_expert(model->model));
        out->context_per_sequence = llama_n_ctx_seq(model->context);
        out->vocabulary           = (uint32_t) llama_vocab_n_tokens(llama_model_get_vocab(model->model));
        out->gpu_layers           = model->gpu_layers;
        out->threads              = model->threads;
        out->total_layers         = out->layers + 1;
        out->context              = llama_n_ctx(model->context);
        out->has_template         = model->has_template;
        out->expert_layers_on_host = model->expert_layers_on_host;
        out->fit                   = model->fit;
        out->override_count        = (uint32_t) model->overrides.size();
        std::copy_n(model->split.begin(), std::min<size_t>(model->split.size(), 16), out->split);
        return true;
    });
}

bool ms_model_override_get(const ms_model * model, size_t index, ms_override * out) {
    if (index >= model->overrides.size()) {
        return false;
    }
    *out = { model->overrides[index].first.c_str(), model->overrides[index].second.c_str() };
    return true;
}

size_t ms_model_memory(const ms_model * model, ms_memory * out, size_t capacity) {
    return ms_guard(nullptr, (size_t) 0, [&] {
        const size_t           count = (size_t) std::max(0, llama_model_n_devices(model->model));
        std::vector<ms_memory> all(1 + count);
        for (auto & entry : all) {
            entry = {};
        }
        for (size_t i = 0; i < count; i++) {
            ggml_backend_dev_t device = llama_model_get_device(model->model, (int) i);
            ms_copy(all[1 + i].name, sizeof all[1 + i].name, ggml_backend_dev_name(device));
        }
        for (const auto & [type, used] : llama_get_memory_breakdown(model->context)) {
            // Whatever is on none of the model's devices is in main memory: plain, pinned or repacked for the CPU.
            size_t             place  = 0;
            ggml_backend_dev_t device = ggml_backend_buft_is_host(type) ? nullptr : ggml_backend_buft_get_device(type);
            for (size_t i = 0; device && i < count; i++) {
                if (device == llama_model_get_device(model->model, (int) i)) {
                    place = 1 + i;
                }
            }
            all[place].model += used.model;
            all[place].context += used.context;
            all[place].compute += ms_phantom_allocated(type, used.compute);
        }
        std::copy_n(all.begin(), std::min(capacity, all.size()), out);
        return all.size();
    });
}

int32_t ms_decode(ms_model * model, const ms_token * tokens, size_t count) {
    return ms_guard(nullptr, (int32_t) -100, [&] {
        std::vector<llama_token>    ids(count);
        std::vector<llama_pos>      positions(count);
        std::vector<int32_t>        lengths(count, 1);
        std::vector<llama_seq_id>   sequences(count);
        std::vector<llama_seq_id *> sequence_lists(count);
        std::vector<int8_t>         logits(count);
        for (size_t i = 0; i < count; i++) {
            ids[i]            = tokens[i].token;
            positions[i]      = tokens[i].position;
            sequences[i]      = tokens[i].sequence;
            sequence_lists[i] = &sequences[i];
            logits[i]         = tokens[i].logits;
        }
        llama_batch batch = {};
        batch.n_tokens    = (int32_t) count;
        batch.token       = ids.data();
        batch.pos         = positions.data();
        batch.n_seq_id    = lengths.data();
        batch.seq_id      = sequence_lists.data();
        batch.logits      = logits.data();
        return llama_decode(model->context, batch);
    });
}

void ms_synchronize(ms_model * model) {
    ms_guard(nullptr, false, [&] {
        llama_synchronize(model->context);
        return true;
    });
}

void ms_sequence_clear(ms_model * model, int32_t sequence) {
    ms_guard(nullptr, false, [&] { return llama_memory_seq_rm(llama_get_memory(model->context), sequence, -1, -1); });
}

void ms_sequence_trim(ms_model * model, int32_t sequence, int32_t position) {
    ms_guard(nullptr, false, [&] {
        return llama_memory_seq_rm(llama_get_memory(model->context), sequence, position, -1);
    });
}

bool ms_token_ends(const ms_model * model, int32_t token) {
    return ms_guard(nullptr, true, [&] { return llama_vocab_is_eog(llama_model_get_vocab(model->model), token); });
}

llama_context_params ms_context_params(const ms_settings & settings) {
    parameters params;
    fill(params, settings, {});
    return params.context;
}

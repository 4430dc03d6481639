// Quantizing a model file, or only saying what would become of each tensor. llama.cpp tells its progress and its choices in
// nothing but its log: this file reads them there.

#include "quantize.h"

#include "error.h"

#include "llama.h"

#include <cstring>
#include <vector>

namespace {

// Only while quantizing; llama.cpp logs on the thread that called it.
ms_quantize_step step      = nullptr;
void *           step_user = nullptr;
bool             planning  = false;
std::string      tensor;

// llama.cpp's keys of what a file was quantized with, less the path of the file on this machine.
void add_override(std::vector<llama_model_kv_override> & list, const char * key, int64_t value) {
    llama_model_kv_override entry = {};
    std::snprintf(entry.key, sizeof entry.key, "%s", key);
    entry.tag     = LLAMA_KV_OVERRIDE_TYPE_INT;
    entry.val_i64 = value;
    list.push_back(entry);
}

} // namespace

// "[  12/ 291] blk.0.ffn_up.weight - [ 4096, …], type = f16, " begins a tensor; when only planning, what follows is
// "size = 1.00 MiB -> 0.50 MiB (q4_K)", or without the arrow where the tensor stays as it is.
void ms_quantize_line(const char * text) {
    if (!step) {
        return;
    }
    int done = 0, all = 0, length = 0;
    if (std::sscanf(text, " [%d/%d] %n", &done, &all, &length) == 2 && length > 0) {
        const char * name = text + length;
        const char * end  = std::strstr(name, " - [");
        tensor.assign(name, end ? (size_t) (end - name) : std::strlen(name));
        while (!tensor.empty() && tensor.back() == ' ') {
            tensor.pop_back();
        }
        if (!planning) {
            step(step_user, tensor.c_str(), nullptr);
        }
        return;
    }
    if (planning && !tensor.empty() && std::strncmp(text, "size =", 6) == 0) {
        const char * open  = std::strrchr(text, '(');
        const char * close = open ? std::strchr(open, ')') : nullptr;
        const bool   turns = std::strstr(text, "->") && close;
        step(step_user, tensor.c_str(), turns ? std::string(open + 1, close).c_str() : "");
        tensor.clear();
    }
}

bool ms_quantize(const ms_quantize_request * request, ms_quantize_step on_step, void * user, ms_error * error) {
    const bool done = ms_guard(error, false, [&] {
        llama_model_quantize_params params = llama_model_quantize_default_params();
        params.nthread                     = (int32_t) request->threads;
        params.ftype                       = (llama_ftype) request->file_type;
        params.allow_requantize            = request->requantize;
        params.pure                        = request->pure;
        params.dry_run                     = request->plan;
        params.max_buf_size                = request->buffer;

        std::vector<llama_model_imatrix_data> imatrix;
        std::vector<llama_model_kv_override>  overrides;
        if (request->imatrix_count > 0) {
            for (size_t i = 0; i < request->imatrix_count; i++) {
                const ms_imatrix_entry & entry = request->imatrix[i];
                imatrix.push_back({ entry.name, entry.values, entry.count });
            }
            imatrix.push_back({ nullptr, nullptr, 0 });
            params.imatrix = imatrix.data();
            add_override(overrides, "quantize.imatrix.entries_count", (int64_t) request->imatrix_count);
            if (request->imatrix_chunks > 0) {
                add_override(overrides, "quantize.imatrix.chunks_count", request->imatrix_chunks);
            }
            overrides.push_back({});
            params.kv_overrides = overrides.data();
        }
        planning  = request->plan;
        step_user = user;
        step      = on_step;
        tensor.clear();
        const uint32_t status = llama_model_quantize(request->source, request->target, &params);
        if (status != 0) {
            ms_take_errors(error);
        }
        return status == 0;
    });
    // The caller's closure ends with this call, however it ends.
    step = nullptr;
    return done;
}

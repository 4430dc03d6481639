// The process as a whole: starting llama.cpp, its log, its aborts, the devices that it sees.

#include "error.h"
#include "quantize.h"

#include "ggml-backend.h"
#include "ggml.h"
#include "llama.h"
#include "log.h"

#include <cstdlib>
#include <cstring>
#include <mutex>

namespace {

// Longest reason kept: a few lines.
constexpr size_t ERRORS_KEPT = 900;

std::mutex  log_lock;
std::string errors;

void log_line(ggml_log_level level, const char * text, void *) {
    if (level == GGML_LOG_LEVEL_DEBUG) {
        return;
    }
    std::fputs(text, stderr);
    if (level == GGML_LOG_LEVEL_ERROR) {
        std::lock_guard<std::mutex> guard(log_lock);
        if (errors.size() + std::strlen(text) < ERRORS_KEPT) {
            errors += text;
        }
    }
    ms_quantize_line(text);
}

// `message` is "path/file.cpp:123: …"; what follows the line number may quote anything, so it stays here.
void log_abort(const char * message) {
    const char * end = message;
    for (const char * colon = std::strchr(message, ':'); colon; colon = std::strchr(colon + 1, ':')) {
        const char * digits = colon + 1;
        const char * after  = digits;
        while (*after >= '0' && *after <= '9') {
            after++;
        }
        if (after > digits && *after == ':') {
            end = after;
            break;
        }
    }
    const char * name = message;
    for (const char * c = message; c < end; c++) {
        if (*c == '/' || *c == '\\') {
            name = c + 1;
        }
    }
    std::fprintf(stderr, "\nMUSTER-ABORT %.*s\n", (int) (end - name), name);
    std::fflush(stderr);
    // Here and now, before ggml starts a debugger for a backtrace.
    std::abort();
}

// GCC's _tile_loadconfig (seen in 12) tells the compiler that it reads 8 of the 64 bytes of the tile configuration; the
// rest of ggml's is then optimized away, and the first prompt over AMX tiles dies of SIGILL. The loaders of models ask the
// CPU backend for its list of extra buffer types: AMX goes off that list, and weights are repacked for AVX-512 instead.
void avoid_broken_amx() {
#if defined(__GNUC__) && !defined(__clang__)
    ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (!cpu) {
        return;
    }
    auto * list = (ggml_backend_dev_get_extra_bufts_t) ggml_backend_reg_get_proc_address(
        ggml_backend_dev_backend_reg(cpu), "ggml_backend_dev_get_extra_bufts");
    if (!list) {
        return;
    }
    ggml_backend_buffer_type_t * kept = list(cpu);
    for (ggml_backend_buffer_type_t * type = kept; *type; type++) {
        if (std::strcmp(ggml_backend_buft_name(*type), "AMX") != 0) {
            *kept++ = *type;
        }
    }
    *kept = nullptr;
#endif
}

} // namespace

bool ms_start(const char * backends, ms_error * error) {
    return ms_guard(error, false, [&] {
        llama_log_set(log_line, nullptr);
        ggml_set_abort_callback(log_abort);
        // The common library logs prompts and grammars when it fails: none of it.
        common_log_set_verbosity_thold(-1);
        if (backends) {
            ggml_backend_load_all_from_path(backends);
        }
        llama_backend_init();
        avoid_broken_amx();
        return true;
    });
}

void ms_take_errors(ms_error * out) {
    std::lock_guard<std::mutex> guard(log_lock);
    while (!errors.empty() && (errors.back() == '\n' || errors.back() == ' ')) {
        errors.pop_back();
    }
    for (char & c : errors) {
        if (c == '\n') {
            c = ';';
        }
    }
    ms_fail(out, errors);
    errors.clear();
}

void ms_abort(void) {
    GGML_ABORT("asked for by a test: %s", "with words that nobody may see");
}

size_t ms_device_count(void) {
    return ggml_backend_dev_count();
}

bool ms_device_get(size_t index, ms_device * out) {
    return ms_guard(nullptr, false, [&] {
        ggml_backend_dev_t     device = ggml_backend_dev_get(index);
        ggml_backend_dev_props props;
        ggml_backend_dev_get_props(device, &props);
        *out = {};
        ms_copy(out->name, sizeof out->name, props.name ? props.name : "");
        ms_copy(out->description, sizeof out->description, props.description ? props.description : "");
        ms_copy(out->backend, sizeof out->backend, ggml_backend_reg_name(ggml_backend_dev_backend_reg(device)));
        ms_copy(out->bus_id, sizeof out->bus_id, props.device_id ? props.device_id : "");
        switch (props.type) {
            case GGML_BACKEND_DEVICE_TYPE_CPU:  out->kind = 1; break;
            case GGML_BACKEND_DEVICE_TYPE_GPU:  out->kind = 2; break;
            case GGML_BACKEND_DEVICE_TYPE_IGPU: out->kind = 3; break;
            default:                            out->kind = 4; break;
        }
        out->memory_total = props.memory_total;
        out->memory_free  = props.memory_free;
        return true;
    });
}

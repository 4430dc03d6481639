// What Rust reaches of llama.cpp. Every function catches every exception: a failure is a false or a null and a text in
// `error`. Opaque types belong to one thread at a time. The other side is engine/src/ffi.rs; keep both alike.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Why a call failed, always ended by a zero.
typedef struct ms_error {
    char text[1024];
} ms_error;

// ---- process -------------------------------------------------------------------------------------------------------

// Once, before anything else. Where `backends` is given, loads ggml's backends from that folder and from nowhere else (but
// for GGML_BACKEND_PATH, which the parent takes out of the environment).
// From here on llama.cpp logs to stderr, and an abort prints `MUSTER-ABORT file:line` and nothing of its message.
bool ms_start(const char * backends, ms_error * error);

// The error lines that llama.cpp logged since the last call, one line, for a reason.
void ms_take_errors(ms_error * out);

// Aborts as a failed assertion in llama.cpp does: for tests of what the parent then knows.
void ms_abort(void);

// ---- devices -------------------------------------------------------------------------------------------------------

typedef struct ms_device {
    char     name[128];
    char     description[256];
    char     backend[64];
    char     bus_id[64]; // PCI, empty where unknown
    int32_t  kind;       // 1 CPU, 2 discrete GPU, 3 integrated GPU, 4 accelerator: muster_proto::DeviceKind
    uint64_t memory_total;
    uint64_t memory_free;
} ms_device;

size_t ms_device_count(void);
bool   ms_device_get(size_t index, ms_device * out);

typedef struct ms_phantom {
    const char * name;
    int32_t      backend;    // 0 CUDA, 1 Vulkan, 2 Metal, 3 ROCm
    uint64_t     total;
    uint64_t     free;
    uint32_t     capability; // of the backend's own numbering; 0 for a common one
    bool         integrated;
} ms_phantom;

// Compute buffers as those of earlier builds, to compare with their logs; the others count only with `graphs`.
typedef struct ms_earlier {
    bool graphs;      // what all of them had in common
    bool f32_masks;   // of fused attention, cast to F16 on the device
    bool copied_rows; // into the KV cache, without inputs that say where each goes
} ms_earlier;

// Registers devices that report memory and never compute. Global to the process: at most once, in a short-lived one.
bool ms_phantoms_register(const ms_phantom * phantoms, size_t count, const ms_earlier * earlier, ms_error * error);

// ---- model ---------------------------------------------------------------------------------------------------------

typedef struct ms_settings {
    uint32_t context;
    uint32_t parallel;
    uint32_t batch;
    uint32_t ubatch;
    int32_t  kv_type;    // 1 F16, 2 Q8_0, 3 Q4_0: muster_proto::KvType
    int32_t  gpu_layers; // -1 for all
    uint32_t threads;    // 0 for all physical cores
    bool     cpu_only;
    bool     phantoms;   // the registered phantoms and no other GPU
    bool     no_alloc;   // only count
    bool     kv_unified;
    int32_t  flash_attention;       // 1 auto, 2 on, 3 off: muster_proto::FlashAttention
    uint32_t expert_layers_on_host; // the first so many layers keep their experts in main memory
    uint32_t total_context;         // 0 for context times parallel
    bool     all_outputs;           // logits for a whole micro-batch instead of one row for each sequence
    bool     fit;                   // placement by llama.cpp's own fit; only without allocating
    uint32_t fit_min_context;
    uint64_t fit_margin;            // to leave free on each device
    bool     fit_unmodified;        // the fit as llama.cpp compiles it: slower, for tests that both place alike
    bool     encoder;               // a text is computed at once, and every token of it is an output
} ms_settings;

typedef struct ms_model ms_model;

// Where single tensors go, instead of where their layer goes: the first pattern that is found in a name decides.
typedef struct ms_override {
    const char * pattern; // a regular expression, as llama.cpp's --override-tensor
    const char * device;  // CPU, or a device's name
} ms_override;

// What goes where, beyond the number of layers; null or empty where llama.cpp decides.
typedef struct ms_layout {
    const float *       split; // of the layers over the devices, in their order; relative
    size_t              split_count;
    const ms_override * overrides;
    size_t              override_count;
} ms_layout;

// Return false to stop loading.
typedef bool (*ms_progress)(float fraction, void * user);

ms_model * ms_model_open(
        const char * path, const ms_settings * settings, const ms_layout * layout, ms_progress progress, void * user,
        ms_error * error);
void       ms_model_close(ms_model * model);

typedef struct ms_model_facts {
    uint32_t layers;
    uint32_t context_train;
    uint32_t experts;
    uint32_t context_per_sequence;
    uint32_t vocabulary;
    uint32_t gpu_layers;
    uint32_t threads;
    uint32_t total_layers;          // the output counts as one
    uint32_t context;               // over all sequences
    uint32_t expert_layers_on_host;
    bool     has_template;
    float    split[16];             // layers on each device, where there are several; else all zero
    uint32_t fit;                   // 0 not asked for, 1 it fits, 2 it does not
    uint32_t override_count;        // that a load has to be given for the same placement
} ms_model_facts;

void ms_model_facts_get(const ms_model * model, ms_model_facts * out);

// False past the end. The texts live as long as the model.
bool ms_model_override_get(const ms_model * model, size_t index, ms_override * out);

typedef struct ms_memory {
    char     name[128]; // empty for the host
    uint64_t model;
    uint64_t context;
    uint64_t compute;
} ms_memory;

// Fills at most `capacity` entries, the host first; returns how many there are.
size_t ms_model_memory(const ms_model * model, ms_memory * out, size_t capacity);

// ---- decoding ------------------------------------------------------------------------------------------------------

typedef struct ms_token {
    int32_t token;
    int32_t position;
    int32_t sequence;
    bool    logits;
} ms_token;

// 0 done, 1 no room in the KV cache, 2 aborted, below 0 an error.
int32_t ms_decode(ms_model * model, const ms_token * tokens, size_t count);
void    ms_synchronize(ms_model * model);
void    ms_sequence_clear(ms_model * model, int32_t sequence);
// Forgets what the sequence has from `position` on.
void    ms_sequence_trim(ms_model * model, int32_t sequence, int32_t position);
bool    ms_token_ends(const ms_model * model, int32_t token);

// ---- chat ----------------------------------------------------------------------------------------------------------

typedef struct ms_chat ms_chat;

typedef struct ms_chat_request {
    const char * messages;    // JSON
    const char * tools;       // JSON or null
    const char * json_schema; // JSON or null
    int32_t      tool_choice; // 0 auto, 1 required, 2 none
    bool         parallel_tool_calls;
} ms_chat_request;

typedef struct ms_sampling {
    float    temperature;
    float    top_p;
    float    min_p;
    float    repeat_penalty;
    float    presence_penalty;
    float    frequency_penalty;
    int32_t  top_k;
    uint32_t seed;
    bool     random_seed;
} ms_sampling;

// Applies the model's template and makes the sampler. A failure is a bad request; its text may hold parts of the prompt
// only where llama.cpp quotes them, so the caller shows it to nobody but the asker.
ms_chat * ms_chat_new(ms_model * model, const ms_chat_request * request, const ms_sampling * sampling, ms_error * error);
void      ms_chat_free(ms_chat * chat);

size_t          ms_chat_prompt_length(const ms_chat * chat);
const int32_t * ms_chat_prompt(const ms_chat * chat);
// Texts that end an answer, by the template; null past the end.
const char * ms_chat_stop(const ms_chat * chat, size_t index);

// Chooses and accepts the next token from the logits of batch entry `index`; below 0 on failure. Says no reason, because
// llama.cpp's quotes the answer.
int32_t ms_chat_sample(ms_chat * chat, ms_model * model, int32_t index);
// Writes the token's bytes (control tokens have none, but for those that the template wants kept); returns how many, or
// minus how many it would take.
int32_t ms_chat_piece(const ms_chat * chat, const ms_model * model, int32_t token, char * out, int32_t capacity);

// One step from the last parse to this one. `index` is below 0 where there is no tool call.
typedef void (*ms_difference)(
        void * user, const char * content, size_t content_length, const char * reasoning, size_t reasoning_length,
        int32_t index, const char * id, const char * name, const char * arguments, size_t arguments_length);

// Parses all of the answer until now. False where the final text does not parse.
bool ms_chat_parse(ms_chat * chat, const char * text, size_t length, bool partial, ms_difference difference, void * user);

// ---- quantizing ----------------------------------------------------------------------------------------------------

// Average squared activations of one tensor's columns (of each expert, one after the other).
typedef struct ms_imatrix_entry {
    const char *  name;
    const float * values;
    size_t        count;
} ms_imatrix_entry;

typedef struct ms_quantize_request {
    const char *             source;
    const char *             target;
    int32_t                  file_type;  // llama_ftype
    uint32_t                 threads;    // 0 for all
    bool                     requantize; // take a source that is quantized
    bool                     pure;       // one type for all tensors
    bool                     plan;       // only say what each tensor would become
    size_t                   buffer;     // rows of a tensor in memory at once, in bytes
    const ms_imatrix_entry * imatrix;
    size_t                   imatrix_count;
    int64_t                  imatrix_chunks; // 0 where not known
} ms_quantize_request;

// A tensor begins; when planning, `type` is what it becomes (ggml's name), empty where it stays as it is; else null.
typedef void (*ms_quantize_step)(void * user, const char * tensor, const char * type);

bool ms_quantize(const ms_quantize_request * request, ms_quantize_step step, void * user, ms_error * error);

// ---- scoring: the logits of many tokens at once ----------------------------------------------------------------------

typedef struct ms_scorer ms_scorer;

typedef struct ms_scorer_settings {
    uint32_t context;
    uint32_t batch;
    uint32_t outputs; // most tokens of a batch whose logits are wanted
    uint32_t threads; // 0 for all physical cores
    int32_t  gpu_layers; // 0 for the CPU alone, -1 for all
} ms_scorer_settings;

typedef struct ms_vocabulary {
    uint32_t tokens;
    int32_t  bos; // -1 for none
    bool     add_bos;
    bool     add_eos;
} ms_vocabulary;

// The weights are mapped from the file, so that two large models need not fit into memory together.
ms_scorer * ms_scorer_open(
        const char * path, const ms_scorer_settings * settings, ms_progress progress, void * user, ms_error * error);
void        ms_scorer_close(ms_scorer * scorer);
void        ms_scorer_vocabulary(const ms_scorer * scorer, ms_vocabulary * out);
// Writes at most `capacity` tokens; returns how many there are, or below 0 on failure. `special`: texts of control tokens
// become those tokens.
int64_t ms_scorer_tokenize(
        const ms_scorer * scorer, const char * text, size_t length, bool special, int32_t * out, size_t capacity,
        ms_error * error);
void    ms_scorer_clear(ms_scorer * scorer);
// Computes tokens at `position` and after; the logits of those from index `first_scored` on are kept.
bool    ms_scorer_decode(
        ms_scorer * scorer, const int32_t * tokens, size_t count, int32_t position, size_t first_scored, ms_error * error);
// Rows of the last batch's logits, as many as were kept, each as long as the vocabulary; null where the model gives none.
const float * ms_scorer_logits(ms_scorer * scorer);

// ---- sizing profiles -----------------------------------------------------------------------------------------------

// A context and a micro-batch, as llama.cpp rounds them.
typedef struct ms_shape {
    uint32_t tokens;  // of a micro-batch
    uint32_t outputs; // rows of logits
    uint32_t cells;   // of each cache
    uint32_t streams; // caches
} ms_shape;

typedef struct ms_reserved {
    uint64_t context;
    uint64_t compute;
} ms_reserved;

// What KV cache and compute buffers would take in another context on a model that was opened without allocating: the host
// first, then the model's devices. The context that it has is of no use afterwards, but to ask again.
bool ms_model_reserve(
        ms_model * model, const ms_settings * settings, const ms_shape * shape, ms_reserved * out, size_t capacity,
        ms_error * error);

// Called for each tensor of weights and of the context: where it lies (0 the host, else 1 + the device) and its bytes there.
typedef void (*ms_on_tensor)(void * user, int32_t place, const char * name, uint64_t bytes);

// What of a model decides the sizes of a context.
typedef struct ms_sizing_facts {
    uint32_t blocks;          // that count as layers, even where a graph leaves some out
    uint32_t window;          // tokens of the sliding window, 0 for none
    bool     causal;
    bool     all_outputs;     // an encoder: every token is an output
    bool     cache;           // has a KV cache or a recurrent state
} ms_sizing_facts;

void ms_model_sizing_facts(const ms_model * model, ms_sizing_facts * out);

// Whether llama.cpp makes a context of these settings on a model that was opened without allocating, and with flash
// attention or without.
bool ms_model_try(ms_model * model, const ms_settings * settings, bool * flash_attention, ms_error * error);

bool ms_model_tensors(ms_model * model, ms_on_tensor on_tensor, void * user, ms_error * error);

// What the allocator of compute buffers is asked for, in order.
enum ms_trace_kind {
    MS_TRACE_PLACE     = 0, // an allocator: `id` is where (0 the host, else 1 + the device)
    MS_TRACE_ALIGNMENT = 1, // of that allocator
    MS_TRACE_MAXIMUM   = 2, // bytes of one of its buffers
    MS_TRACE_ALLOCATE  = 3, // `bytes` for the new piece `id`; `name` is the tensor's
    MS_TRACE_FREE      = 4, // piece `id`, all that is left of it
    MS_TRACE_SHRINK    = 5, // another tensor takes the place of piece `id`, and needs so many bytes of it
};

typedef void (*ms_on_trace)(void * user, int32_t kind, uint32_t allocator, uint32_t id, uint64_t bytes, const char * name);

// The trace of the graph of the last ms_model_reserve.
bool ms_model_trace(ms_model * model, ms_on_trace on_trace, void * user, ms_error * error);

// ---- making models -------------------------------------------------------------------------------------------------

// A model of metadata alone: llama.cpp creates its tensors without data, optional ones too.
typedef struct ms_maker ms_maker;

typedef struct ms_tensor {
    char    name[64]; // GGML_MAX_NAME
    int64_t shape[4]; // row length first
    int32_t type;     // ggml_type
} ms_tensor;

// `metadata` is a GGUF without tensors, in memory.
ms_maker * ms_maker_new(const void * metadata, size_t length, ms_error * error);
void       ms_maker_free(ms_maker * maker);

// Fills at most `capacity`; returns how many there are.
size_t ms_maker_tensors(const ms_maker * maker, ms_tensor * out, size_t capacity);

// Replaces the type of each tensor, which is its type before quantizing, by what llama.cpp's quantizer makes of it for
// this llama_ftype.
bool ms_maker_types(const ms_maker * maker, int32_t file_type, ms_tensor * tensors, size_t count, ms_error * error);

// The same for a file, as the quantizer chooses where it has an importance matrix; llama.cpp exports its rules only without
// one, so its quantizer is run without writing anything and listened to. Tensors whose type stays are left as they are.
bool ms_plan_with_importance(
        const char * source, int32_t file_type, ms_tensor * tensors, size_t count, ms_error * error);

// Encodes rows of values as a tensor type. `columns` is a multiple of its block, `capacity` the exact size in bytes.
bool ms_encode(
        int32_t type, const float * values, int64_t columns, int64_t rows, void * out, size_t capacity, ms_error * error);

#ifdef __cplusplus
}
#endif

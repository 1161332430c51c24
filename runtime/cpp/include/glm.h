/* Runs a folder that glm-export wrote, with ONNX Runtime. docs/cpp.md describes the library.
 *
 * Threads: a glm_model never changes, so any number of threads may use it at once. A glm_session
 * may be used by one thread at a time. The exception is glm_cancel: any thread may call it, also
 * while glm_generate runs. Free all sessions before their model. Callbacks run in the thread that
 * called glm_generate. They must not throw exceptions or call longjmp.
 *
 * Errors: every function that can fail returns a glm_status. glm_error_text() then says what was
 * found, what was expected and what to do. Its text belongs to the calling thread and is valid
 * until the next call in that thread. The library writes nothing to stdout or stderr.
 *
 * Texts are UTF-8. A text that is passed with its length may contain zero bytes.
 *
 * Versions: glm_load_options, glm_model_info, glm_chat_options and glm_settings begin with their
 * size, which the caller sets to `sizeof`. These structures and glm_piece only grow at their end,
 * and zero in a new member means the old behavior. Therefore a program that was compiled with an
 * older header runs with a newer library. It also runs with an older library if it asks for nothing
 * that is newer. New values may be added to the enumerations. Nothing else changes.
 */
#ifndef GLM_H
#define GLM_H

#include <stddef.h>
#include <stdint.h>

/* Callers on Windows need no dllimport, which would only save one jump for each call. */
#if defined(_WIN32) && defined(GLM_BUILDING)
#define GLM_API __declspec(dllexport)
#elif defined(__GNUC__) && defined(GLM_BUILDING)
#define GLM_API __attribute__((visibility("default")))
#else
#define GLM_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct glm_model glm_model;
typedef struct glm_session glm_session;

typedef enum glm_status {
  GLM_OK = 0,
  GLM_BAD_FOLDER = 1,   /* files are missing, damaged, or differ from the manifest */
  GLM_NEWER_FORMAT = 2, /* the folder needs a newer version of this library */
  GLM_UNSUPPORTED = 3,  /* this library does not support this kind of tokenizer or folder */
  GLM_BAD_PROMPT = 4,   /* empty, too long, not UTF-8, an unknown token id or role */
  GLM_BAD_SETTING = 5, /* a value outside its range, or an unexpected NULL */
  GLM_NO_MEMORY = 6,
  GLM_RUN_FAILED = 7, /* ONNX Runtime failed, or the logits were not finite */
  GLM_CANCELLED = 8   /* glm_cancel was called, or the callback returned non-zero */
} glm_status;

/* The version of this library, for example "0.1.0". */
GLM_API const char* glm_version(void);

/* Describes the last error in this thread. Never NULL. */
GLM_API const char* glm_error_text(void);

typedef struct glm_load_options {
  size_t size;           /* sizeof(glm_load_options) */
  int32_t threads;       /* 0: one for each physical core that this process may use */
  int32_t verify_hashes; /* non-zero: compare the SHA-256 of every file, not only its size */
  int32_t huge_pages;    /* non-zero: use huge pages (Linux); slower loading, faster decoding */
  const char* prepared;  /* NULL, or the copy that glm_prepare wrote on this machine */
  /* 0: the rotary embedding as exported. Above 1: YaRN with this factor, which makes the context
   * longer. 1: no YaRN, in a folder that was exported with it. No effect on glm_prepare. */
  double rope_factor;
  int64_t rope_original_context; /* training context for YaRN; 0: the folder's */
} glm_load_options;

/* Opens a folder. `options` may be NULL. */
GLM_API glm_status glm_load(const char* folder, const glm_load_options* options, glm_model** model);
GLM_API void glm_free(glm_model* model); /* NULL is fine */

/* Moves the memory of this process onto huge pages (Linux), as huge_pages of glm_load_options does.
 * It takes seconds, and any thread may call it while another one generates. */
GLM_API void glm_use_huge_pages(void);

/* Writes the folder's graph to a new folder `output`, with weights that are packed for this
 * machine's kernels. glm_load maps these weights into memory. Without the copy, ONNX Runtime packs
 * the weights into private memory at every load. The copy takes about twice the space of
 * model.onnx.data. The hashes of the graph must be those of the manifest. glm_load refuses a copy
 * that was made for another processor, version of ONNX Runtime or folder. */
GLM_API glm_status glm_prepare(const char* folder, const char* output,
                               const glm_load_options* options);

typedef struct glm_model_info {
  size_t size;            /* sizeof(glm_model_info), set by the caller */
  int64_t context_length; /* maximum number of tokens in prompt and answer together */
  int64_t token_count;    /* number of token ids that the tokenizer uses */
  int64_t vocab_size;     /* number of logits: token_count and padding */
  int32_t threads;        /* number of threads that the model runs on */
} glm_model_info;

GLM_API glm_status glm_describe(const glm_model* model, glm_model_info* info);

/* Converts text to token ids. Special tokens in the text become their ids; no others are added.
 * `ids` is an array of `capacity` elements (NULL if 0). `*count` becomes the number of tokens in
 * the text. If it is larger than the capacity, only the first ids are written: call again with a
 * larger array. */
GLM_API glm_status glm_tokenize(const glm_model* model, const char* text, size_t length,
                                int32_t* ids, size_t capacity, size_t* count);

/* Converts token ids to text, without special tokens. Invalid UTF-8 becomes U+FFFD. `*length`
 * becomes the number of bytes in the text, as in glm_tokenize. No terminating zero is written. */
GLM_API glm_status glm_detokenize(const glm_model* model, const int32_t* ids, size_t count,
                                  char* text, size_t capacity, size_t* length);

typedef struct glm_message {
  const char* role; /* "system", "user", "assistant", or another role of the chat template */
  const char* content;
} glm_message;

/* Converts a conversation to the text of a prompt with the folder's chat_table.json. `text`,
 * `capacity` and `length` are as in glm_detokenize. `thinking`: 1 asks for reasoning, 0 asks for
 * none, -1 is the template's default. */
GLM_API glm_status glm_render_chat(const glm_model* model, const glm_message* messages,
                                   size_t count, int32_t thinking, char* text, size_t capacity,
                                   size_t* length);

/* A message of glm_encode_chat; `content` may be empty beside `tool_calls`. */
typedef struct glm_chat_message {
  const char* role; /* results of tools have the role "tool" */
  const char* content;
  const char* tool_calls; /* NULL, or a JSON list of calls in OpenAI's format */
} glm_chat_message;

typedef struct glm_chat_options {
  size_t size;              /* sizeof(glm_chat_options) */
  int32_t thinking;         /* as in glm_render_chat; -1 is the template's default */
  int32_t continues_answer; /* non-zero: the model continues the last message, an assistant's */
  int32_t is_sanitized;     /* non-zero: names of control tokens in messages are plain text */
  /* NULL, or a JSON list of tools in OpenAI's format. {"type": "python"}, "simple_browser" and
   * "cogview" are the built-in tools of GLM-4 All Tools. */
  const char* tools;
  /* NULL, or for each message NULL or its metadata, as "quote_result [7]" of a result of GLM-4 All
   * Tools. Results of the browser and of cogview have the usual ones by default. */
  const char* const* metadata;
} glm_chat_options;

/* Converts a conversation to the ids of a prompt. `ids`, `capacity` and `found` are as in
 * glm_tokenize. `options` may be NULL. Set `is_sanitized` if messages come from other people:
 * otherwise "<|user|>" in a message begins a user's turn. */
GLM_API glm_status glm_encode_chat(const glm_model* model, const glm_chat_message* messages,
                                   size_t count, const glm_chat_options* options, int32_t* ids,
                                   size_t capacity, size_t* found);

/* Finds tool calls at the end of a whole answer, which was generated with `has_tools`, in the format
 * of the model: as GLM-4-0414, GLM-4.5, GLM-Z1-Rumination, ChatGLM3 or GLM-4 All Tools writes them.
 * `tools` is the JSON list of the prompt. Writes a JSON list of objects with `name` and `arguments`,
 * the latter as the JSON text of an object: of `python` {"code": ...}, of `cogview` {"prompt": ...},
 * and of `simple_browser` {"action": "search", "query": ...} or another action with its parameters.
 * `calls`, `capacity` and `length` are as in glm_detokenize. `*text_size` becomes the number of bytes
 * of the answer before the calls. */
GLM_API glm_status glm_find_calls(const glm_model* model, const char* answer, size_t size,
                                  const char* tools, char* calls, size_t capacity, size_t* length,
                                  size_t* text_size);

typedef struct glm_bias {
  int32_t token;
  float bias; /* added to the logit of the token, up to 1e6 in size; -INFINITY forbids the token */
} glm_bias;

/* How tokens are chosen and when the answer ends. Sampling works as in transformers, in the same
 * order. Memory that a pointer refers to is read before glm_generate chooses the first token, and
 * not later. */
typedef struct glm_settings {
  size_t size;        /* sizeof(glm_settings) */
  double temperature; /* 0: greedy decoding; at most 1e6 */
  int32_t top_k;      /* 0: keep all tokens */
  double top_p;       /* 1: keep all tokens */
  double min_p;       /* 0: keep all tokens */
  double repetition_penalty; /* 0.01 to 1e6 */
  double presence_penalty;   /* up to 1e6 in size */
  double frequency_penalty;
  int32_t has_seed;       /* 0: a random seed each time */
  uint64_t seed;          /* for numpy's PCG64, so that answers are the same as in glm_runtime */
  int32_t max_new_tokens; /* 0: until the context is full */
  int32_t ignores_eos;    /* non-zero: never choose a token that ends the answer */
  const glm_bias* biases;
  size_t bias_count;
  const char* const* stop; /* strings that end the answer, which does not include them */
  size_t stop_count;       /* at most 1,000 */
  /* Non-zero: text before </think> is returned as `reasoning` of a piece, without the tags and the
   * blank lines around them. Use it for chats. Stop strings do not apply to the reasoning. */
  int32_t parts_thinking;
  int32_t limits_thinking;     /* non-zero: limit reasoning to max_thinking_tokens */
  int32_t max_thinking_tokens; /* requires parts_thinking */
  /* The DRY repetition penalty: multiplier * base ^ (length - allowed_length) is subtracted from
   * the logit of a token that would extend a repeated sequence of `length` tokens. No repeated
   * sequence extends over a token that contains one of the breakers. */
  double dry_multiplier; /* 0 turns it off; 0.8 is usual */
  double dry_base;
  int32_t dry_allowed_length;
  const char* const* dry_breakers;
  size_t dry_breaker_count;
  int32_t max_length; /* limit for prompt and answer together; 0: none. max_new_tokens wins. */
  /* Non-zero: <|assistant|>, which begins a turn, becomes a line end in the text. 2: of GLM-4 All
   * Tools it becomes U+FDD2 instead, which is no character of a text. Code and prompts are calls at
   * the beginning of a turn only, so glm_find_calls needs it; show it as a line end. */
  int32_t has_tools;
} glm_settings;

/* Returns the settings that the folder recommends, with its limit of tokens if it has one. There is
 * no seed; DRY is off, and its other members have their usual values. Set `settings->size` before
 * the call. */
GLM_API glm_status glm_default_settings(const glm_model* model, glm_settings* settings);

typedef enum glm_finish {
  GLM_GOES_ON = 0,    /* more tokens follow */
  GLM_STOPPED = 1,    /* `token` is an end-of-sequence token */
  GLM_LENGTH = 2,     /* the token limit is reached, or the context is full */
  GLM_STOP_STRING = 3 /* a stop string was generated */
} glm_finish;

typedef struct glm_piece {
  int32_t token;
  const char* text; /* the characters that this token completes; may be empty */
  size_t length;
  glm_finish finish;     /* GLM_GOES_ON except in the last piece */
  const char* reasoning; /* the same for the reasoning, if parts_thinking is set */
  size_t reasoning_length;
} glm_piece;

/* Called once for each token. `piece` is valid during the call. If the callback returns non-zero,
 * glm_generate ends with GLM_CANCELLED. */
typedef int (*glm_callback)(void* user, const glm_piece* piece);

GLM_API glm_status glm_new_session(const glm_model* model, glm_session** session);
GLM_API void glm_free_session(glm_session* session); /* NULL is fine */

/* Generates the answer to a prompt. The session keeps the KV cache of its tokens, and tokens that a
 * prompt shares with it are not computed again. Therefore pass the whole conversation each time.
 * `settings` may be NULL for the folder's settings. `callback` may be NULL. */
GLM_API glm_status glm_generate(glm_session* session, const int32_t* prompt, size_t count,
                                const glm_settings* settings, glm_callback callback, void* user);

/* Ends the running glm_generate, also in the middle of a token. It returns GLM_CANCELLED, and the
 * session can be used again. Does nothing if glm_generate is not running. */
GLM_API void glm_cancel(glm_session* session);

/* Returns the logits after the last token of a prompt. `logits` is an array of `capacity` elements;
 * there are as many logits as vocab_size of glm_describe says. */
GLM_API glm_status glm_logits(glm_session* session, const int32_t* prompt, size_t count,
                              float* logits, size_t capacity, size_t* vocab_size);

#ifdef __cplusplus
}
#endif

#endif

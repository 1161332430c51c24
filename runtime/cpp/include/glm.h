/* Runs a folder that glm-export wrote, over ONNX Runtime. Plain C; README.md has an example.
 *
 * Threads: a glm_model never changes, so any number of threads may use it at once. A glm_session
 * belongs to one thread at a time; glm_cancel alone may be called from any thread, also while
 * glm_generate runs. Free every session before its model. Callbacks run in the thread that called
 * glm_generate, and must not throw, nor jump out.
 *
 * Errors: every function that can fail returns a glm_status. What happened, what was expected and
 * what to do is in glm_error_text(), which belongs to the calling thread and lasts until the next
 * call in that thread. Nothing is written to stdout or stderr.
 *
 * Texts are UTF-8. Where a length is given, a text may hold zero bytes.
 *
 * Versions: glm_load_options, glm_model_info and glm_settings begin with their size, which the
 * caller sets to `sizeof`. They grow at their end only, and a new member's zero is what was done
 * before: a program that was compiled with an older header runs with a newer library, and the other
 * way round as long as it asks for nothing newer. glm_piece grows at its end, too; it is the
 * library's. New numbers may be added to the enumerations. All else stays.
 */
#ifndef GLM_H
#define GLM_H

#include <stddef.h>
#include <stdint.h>

/* Callers on Windows need no dllimport: it only spares functions a jump. */
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
  GLM_BAD_FOLDER = 1,   /* missing, truncated, damaged, or not what the manifest promises */
  GLM_NEWER_FORMAT = 2, /* the folder needs a newer version of this library */
  GLM_UNSUPPORTED = 3,  /* a kind of tokenizer or folder that is not built here, by name */
  GLM_BAD_PROMPT = 4,   /* empty, too long, no UTF-8, unknown id, a role without a rule */
  GLM_BAD_SETTING = 5,  /* a value outside its range, a NULL where something is needed */
  GLM_NO_MEMORY = 6,
  GLM_RUN_FAILED = 7, /* ONNX Runtime failed, or the model gave no finite logits */
  GLM_CANCELLED = 8   /* by glm_cancel, or because the callback returned non-zero */
} glm_status;

/* The version of this library, for example "0.1.0". */
GLM_API const char* glm_version(void);

/* What happened in the last failed call of this thread; never NULL. */
GLM_API const char* glm_error_text(void);

typedef struct glm_load_options {
  size_t size;           /* sizeof(glm_load_options) */
  int32_t threads;       /* 0: the physical cores that this process may use */
  int32_t verify_hashes; /* non-zero: read every file and compare its SHA-256, not only its size */
  int32_t huge_pages;    /* non-zero, on Linux: seconds more now, then more tokens per second */
  const char* prepared;  /* NULL, or a folder that glm_prepare made of this one on this machine */
} glm_load_options;

/* Opens a folder. `options` may be NULL. */
GLM_API glm_status glm_load(const char* folder, const glm_load_options* options, glm_model** model);
GLM_API void glm_free(glm_model* model); /* NULL is fine */

/* Writes a copy of the folder's graph as this machine's kernels want it, in a new folder `output`.
 * Weights are then mapped from it, where otherwise ONNX Runtime packs them into memory of its own at
 * every load. It takes about twice the space of model.onnx.data. A graph that is not the manifest's,
 * by its hashes, is refused. glm_load refuses a copy for another processor, version of ONNX Runtime
 * or folder. */
GLM_API glm_status glm_prepare(const char* folder, const char* output,
                               const glm_load_options* options);

typedef struct glm_model_info {
  size_t size;            /* sizeof(glm_model_info), set by the caller */
  int64_t context_length; /* tokens of prompt and answer together */
  int64_t token_count;    /* ids from 0 to below it stand for something */
  int64_t vocab_size;     /* logits: as many, and padding */
  int32_t threads;        /* that the model runs on */
} glm_model_info;

GLM_API glm_status glm_describe(const glm_model* model, glm_model_info* info);

/* Text to ids. Special tokens written in the text become their ids; none are added.
 * `ids` is the caller's, of `capacity` places (NULL if 0); `count` is how many ids there are.
 * If they are more than the capacity, only so many are written: ask again with more room. */
GLM_API glm_status glm_tokenize(const glm_model* model, const char* text, size_t length,
                                int32_t* ids, size_t capacity, size_t* count);

/* Ids to text, special tokens left out, broken UTF-8 as U+FFFD. As in glm_tokenize, `length` is
 * what there is, and no zero is added. */
GLM_API glm_status glm_detokenize(const glm_model* model, const int32_t* ids, size_t count,
                                  char* text, size_t capacity, size_t* length);

typedef struct glm_message {
  const char* role; /* "system", "user", "assistant" ...: what the folder's table knows */
  const char* content;
} glm_message;

/* Conversation to prompt, by the folder's chat_table.json; as in glm_detokenize.
 * `thinking`: 1 asks for it, 0 for none, -1 leaves it to the model's template. */
GLM_API glm_status glm_render_chat(const glm_model* model, const glm_message* messages,
                                   size_t count, int32_t thinking, char* text, size_t capacity,
                                   size_t* length);

typedef struct glm_bias {
  int32_t token;
  float bias; /* added to the token's logit; -INFINITY forbids it */
} glm_bias;

/* How to choose tokens and when to stop, in the meaning and order of transformers. What pointers
 * lead to is read before glm_generate chooses the first token, and never kept. */
typedef struct glm_settings {
  size_t size;        /* sizeof(glm_settings) */
  double temperature; /* 0: always the likeliest token */
  int32_t top_k;      /* 0: all */
  double top_p;       /* 1: all */
  double min_p;       /* 0: all */
  double repetition_penalty;
  double presence_penalty;
  double frequency_penalty;
  int32_t has_seed; /* 0: draws differently every time */
  uint64_t seed;    /* the same draws as numpy's PCG64(seed), so as glm_runtime's */
  int32_t max_new_tokens; /* 0: until the context is full */
  int32_t ignores_eos;    /* non-zero: no token that ends an answer is ever chosen */
  const glm_bias* biases;
  size_t bias_count;
  const char* const* stop; /* texts that end the answer, and are not part of it */
  size_t stop_count;
  /* Non-zero: what stands before </think> comes in a piece's `reasoning`, without the marks and
   * the blank lines around them. For chats; otherwise all is text. Thinking may hold stop texts. */
  int32_t parts_thinking;
  int32_t limits_thinking;     /* non-zero: thinking longer than max_thinking_tokens is closed */
  int32_t max_thinking_tokens; /* needs parts_thinking */
  /* DRY: tokens that would prolong a repeat get less likely by multiplier * base ^ (length -
   * allowed_length). A token whose text holds one of the breakers ends every repeat. */
  double dry_multiplier; /* 0: off; 0.8 is usual */
  double dry_base;
  int32_t dry_allowed_length;
  const char* const* dry_breakers;
  size_t dry_breaker_count;
} glm_settings;

/* The folder's own settings, without seed and limit, and with DRY's usual values but off. Set
 * `settings->size` before. */
GLM_API glm_status glm_default_settings(const glm_model* model, glm_settings* settings);

typedef enum glm_finish {
  GLM_GOES_ON = 0,
  GLM_STOPPED = 1,    /* the model ended its answer; `token` is the one that says so */
  GLM_LENGTH = 2,     /* the limit, or the context is full */
  GLM_STOP_STRING = 3 /* one of the settings' stop texts appeared */
} glm_finish;

typedef struct glm_piece {
  int32_t token;
  const char* text; /* whole characters that became complete with this token; often empty */
  size_t length;
  glm_finish finish; /* other than GLM_GOES_ON on the last piece only */
  const char* reasoning; /* the same of the thinking, where settings part it */
  size_t reasoning_length;
} glm_piece;

/* Called once for each token; `piece` lasts for the call. Non-zero ends the answer as
 * GLM_CANCELLED. */
typedef int (*glm_callback)(void* user, const glm_piece* piece);

GLM_API glm_status glm_new_session(const glm_model* model, glm_session** session);
GLM_API void glm_free_session(glm_session* session); /* NULL is fine */

/* Answers a prompt. The session keeps the keys and values of all it read: what a prompt has in
 * common with the tokens before is not read again, so give the whole conversation each time.
 * `settings` may be NULL for the folder's own, `callback` may be NULL. */
GLM_API glm_status glm_generate(glm_session* session, const int32_t* prompt, size_t count,
                                const glm_settings* settings, glm_callback callback, void* user);

/* Ends the answer that is being written, in the middle of a token if need be; glm_generate then
 * returns GLM_CANCELLED, and the session can be used again. Does nothing if none is running. */
GLM_API void glm_cancel(glm_session* session);

/* The logits after the last token of a prompt: `capacity` places for glm_describe's vocab_size. */
GLM_API glm_status glm_logits(glm_session* session, const int32_t* prompt, size_t count,
                              float* logits, size_t capacity, size_t* vocab_size);

#ifdef __cplusplus
}
#endif

#endif

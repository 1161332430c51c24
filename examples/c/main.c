/* Asks a model one question and prints the answer while it is generated.
 *
 *   ask FOLDER QUESTION
 */
#include <glm.h>
#include <stdio.h>

enum { MAX_BYTES = 16384, MAX_TOKENS = 4096 };

static int check(glm_status status) {
  if (status != GLM_OK) fprintf(stderr, "ask: %s\n", glm_error_text());
  return status == GLM_OK;
}

static int print_piece(void* user, const glm_piece* piece) {
  (void)user;
  fwrite(piece->text, 1, piece->length, stdout);
  return fflush(stdout); /* Any value other than 0 ends the answer. */
}

/* Returns the number of tokens in the prompt, or 0 if there is no valid prompt. */
static size_t make_prompt(const glm_model* model, const char* question, int32_t* tokens) {
  static char text[MAX_BYTES];
  const glm_message message = {"user", question};
  size_t length = 0, count = 0;
  if (!check(glm_render_chat(model, &message, 1, -1, text, MAX_BYTES, &length))) return 0;
  if (length <= MAX_BYTES &&
      !check(glm_tokenize(model, text, length, tokens, MAX_TOKENS, &count))) {
    return 0;
  }
  if (length <= MAX_BYTES && count <= MAX_TOKENS) return count;
  fprintf(stderr, "ask: the question is too long; this example has room for %d bytes.\n",
          MAX_BYTES);
  return 0;
}

static int ask(const glm_model* model, glm_session* session, const char* question) {
  static int32_t tokens[MAX_TOKENS];
  glm_settings settings = {.size = sizeof settings};
  size_t count = make_prompt(model, question, tokens);
  if (count == 0 || !check(glm_default_settings(model, &settings))) return 0;
  settings.temperature = 0; /* Greedy decoding gives the same answer every time. */
  settings.max_new_tokens = 256;
  if (!check(glm_generate(session, tokens, count, &settings, print_piece, NULL))) return 0;
  return printf("\n") == 1;
}

int main(int argc, char** argv) {
  glm_model* model = NULL;
  glm_session* session = NULL;
  if (argc != 3) {
    fprintf(stderr, "usage: ask FOLDER QUESTION\n");
    return 2;
  }
  int is_done = check(glm_load(argv[1], NULL, &model)) && check(glm_new_session(model, &session)) &&
                ask(model, session, argv[2]);
  glm_free_session(session);
  glm_free(model);
  return !is_done;
}

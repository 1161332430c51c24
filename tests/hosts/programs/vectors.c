/* What a folder answers through glm.h, on any system: one JSON object.
 *
 *   vectors FOLDER TEMPERATURE TOP_K TOP_P SEED LIMIT PROMPT_FILE
 */
#include <stdio.h>
#include <stdlib.h>

#include "glm.h"

enum { MOST_BYTES = 1 << 16, MOST_IDS = 1 << 13, MOST_LOGITS = 1 << 13 };

static char text[MOST_BYTES];
static int32_t ids[MOST_IDS];
static float logits[MOST_LOGITS];

static void check(glm_status status) {
  if (status == GLM_OK) return;
  fprintf(stderr, "%d %s\n", status, glm_error_text());
  exit(1);
}

static int print_token(void* is_first, const glm_piece* piece) {
  printf(*(int*)is_first ? "%d" : ", %d", (int)piece->token);
  *(int*)is_first = 0;
  return 0;
}

static void print_answer(const glm_model* model, size_t count, const glm_settings* settings) {
  glm_session* session = NULL;
  int is_first = 1;
  check(glm_new_session(model, &session));
  printf("[");
  check(glm_generate(session, ids, count, settings, print_token, &is_first));
  printf("]");
  glm_free_session(session);
}

static void print_logits(const glm_model* model, size_t count) {
  glm_session* session = NULL;
  size_t vocab_size = 0;
  check(glm_new_session(model, &session));
  check(glm_logits(session, ids, count, logits, MOST_LOGITS, &vocab_size));
  if (vocab_size > MOST_LOGITS) exit(2);
  for (size_t i = 0; i < vocab_size; ++i) printf(i == 0 ? "[%.9g" : ", %.9g", logits[i]);
  printf("]");
  glm_free_session(session);
}

static void print_vector(const glm_model* model, const char* path, const glm_settings* drawn) {
  FILE* file = fopen(path, "rb");
  if (file == NULL) exit(2);
  size_t length = fread(text, 1, sizeof text, file), count = 0;
  fclose(file);
  check(glm_tokenize(model, text, length, ids, MOST_IDS, &count));
  if (count > MOST_IDS) exit(2);
  glm_settings greedy = *drawn;
  greedy.temperature = 0;
  printf("{\"token_ids\": [");
  for (size_t i = 0; i < count; ++i) printf(i == 0 ? "%d" : ", %d", (int)ids[i]);
  printf("], \"logits\": ");
  print_logits(model, count);
  printf(", \"greedy\": ");
  print_answer(model, count, &greedy);
  printf(", \"sampled\": ");
  print_answer(model, count, drawn);
  printf("}\n");
}

int main(int arguments, char** values) {
  glm_model* model = NULL;
  glm_settings settings = {.size = sizeof settings};
  if (arguments != 8) return 2;
  check(glm_load(values[1], NULL, &model));
  check(glm_default_settings(model, &settings));
  settings.temperature = atof(values[2]);
  settings.top_k = atoi(values[3]);
  settings.top_p = atof(values[4]);
  settings.has_seed = 1;
  settings.seed = strtoull(values[5], NULL, 10);
  settings.max_new_tokens = atoi(values[6]);
  print_vector(model, values[7], &settings);
  glm_free(model);
  return 0;
}
